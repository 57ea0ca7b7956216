"""Scorer: an artifact's ONNX graph on ONNX Runtime, digests checked before anything is loaded."""

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

from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.domain.features.encoding import Encoding

#: Sessions kept loaded: champion, challenger and two baselines, twice over.
SESSIONS = 8
#: Rows scored in one call, so that memory stays small however long the window is.
ROWS = 8192


@dataclass(frozen=True)
class Loaded:
    encoding: Encoding
    session: onnxruntime.InferenceSession


class OnnxScorer:
    """Scores raw rows as the model server does: the same encoding, the same graph."""

    def __init__(self, threads: int = 1) -> None:
        """`threads` per session; 0 leaves it to ONNX Runtime."""
        self.threads = threads
        self.load = lru_cache(maxsize=SESSIONS)(self._load)

    def score(self, artifact: Reference, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Raw columns of n rows → probabilities `[n]`.

        Raises Corrupt when a file is missing or its digest differs, ValueError naming a field that cannot be read.
        """
        model = self.load(artifact)
        ids, numbers = model.encoding.encode(columns)
        parts = [
            model.session.run(["score"], {"ids": ids[i : i + ROWS], "numbers": numbers[i : i + ROWS]})[0]
            for i in range(0, len(ids), ROWS)
        ]
        return np.concatenate([np.empty(0), *parts]).astype(np.float64)

    def _load(self, artifact: Reference) -> Loaded:
        path = Path(artifact.uri)
        manifest = json.loads(_checked(path, artifact.digest))
        graph, encoding = (_checked(path.parent / name, manifest["files"][name]["sha256"])
                           for name in (manifest.get("graph", "model.onnx"), "encoding.json"))  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return Loaded(Encoding.from_dict(json.loads(encoding)), session)


def _checked(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise Corrupt(f"{path}: cannot be read: {fault.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise Corrupt(f"{path}: SHA-256 is {found[:12]}…, recorded is {digest[:12]}…; it was changed since")
    return data
