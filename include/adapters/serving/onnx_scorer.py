"""Scorer on ONNX Runtime: it runs an artifact's ONNX graph, and checks digests before anything is loaded."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.domain.features.encoding import Encoding

#: Models that stay loaded: champion, challenger and two baselines, twice over.
MAX_LOADED = 8
#: Rows scored in one call, so that memory stays small however long the window is.
BATCH_ROWS = 8192


@dataclass(frozen=True)
class LoadedModel:
    """An artifact in memory: how raw rows become ids and numbers, and the graph that scores those."""

    encoding: Encoding
    session: onnxruntime.InferenceSession


class OnnxScorer:
    """Scores raw rows as the model server does: the same encoding, the same graph."""

    def __init__(self, threads: int = 1) -> None:
        """Give each session so many threads; 0 leaves the number to ONNX Runtime."""
        self.threads = threads
        self.load = lru_cache(maxsize=MAX_LOADED)(self._load)

    def score(self, artifact: Reference, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Return probabilities `[n]` for the raw columns of n rows.

        Raises Corrupt when a file is missing or its digest differs, ValueError naming a field that cannot be read.
        """
        model = self.load(artifact)
        ids, numbers = model.encoding.encode(columns)
        parts = [
            model.session.run(["score"], {"ids": ids[i : i + BATCH_ROWS], "numbers": numbers[i : i + BATCH_ROWS]})[0]
            for i in range(0, len(ids), BATCH_ROWS)
        ]
        return np.concatenate([np.empty(0), *parts]).astype(np.float64)

    def _load(self, artifact: Reference) -> LoadedModel:
        manifest, folder = store.read(artifact, ModelManifest), store.path_of(artifact.uri).parent
        names = (manifest.graph, "encoding.json")
        graph, encoding = (_checked(folder / name, manifest.files[name].sha256) for name in names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return LoadedModel(Encoding.from_dict(json.loads(encoding)), session)


def _checked(path: Path, digest: str) -> bytes:
    """Return the content of a file whose SHA-256 is this one. Raises Corrupt for any other."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Corrupt(f"{path}: cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise Corrupt(f"{path}: its SHA-256 is not the recorded {digest[:12]}…; it was changed since")
    return data
