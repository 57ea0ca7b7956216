"""A model version in memory: checked against its manifest, warmed up, ready to score."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
import onnxruntime as ort

from include.artifacts import store
from include.artifacts.atomic_write import FileFacts
from include.artifacts.model_manifest import ModelManifest
from include.domain.errors import Corrupt, Unavailable
from include.domain.features.encoding import Encoding
from include.domain.features.row_encoding import RowEncoder
from include.online_store.protocol import OnlineStore
from include.server.lookups import Lookups
from include.server.responses import RequestError
from include.server.rows import EncodedRow, RowReader, stack_rows

#: Opens the online store anew.
StoreFactory = Callable[[], OnlineStore]


@dataclass(frozen=True)
class VersionReference:
    """A version as its source names it: its number, and its manifest by place and SHA-256 (None: not checked)."""

    version: str
    uri: str
    digest: str | None


@dataclass(frozen=True)
class LoadOptions:
    """Rows of one request, threads of one inference, and whether unknown columns are dropped instead of refused."""

    max_rows: int = 1024
    threads: int = 1
    lenient: bool = False


class ServableModel:
    """A version that can score. `categories` are the texts of each categorical field in the order of their ids."""

    def __init__(
        self,
        reference: VersionReference,
        manifest: ModelManifest,
        encoding: Encoding,
        rows: RowReader,
        session: ort.InferenceSession,
    ) -> None:
        self.reference, self.version, self.manifest = reference, reference.version, manifest
        self.encoding, self.rows, self._session = encoding, rows, session
        self.log_share = manifest.serving.log_share
        self.loaded_at, self.load_seconds = time.time(), 0.0
        self.vocabulary_sizes = np.array(encoding.sizes, dtype=np.uint64)
        self.categories = {field: sorted(v, key=v.__getitem__) for field, v in encoding.vocabulary.items()}
        fields = enumerate((*encoding.categorical, *encoding.numeric))
        #: An encoded row's values by their fields' names.
        self.feature_type = msgspec.defstruct(
            "Row", [(f"c{i}", object, msgspec.field(name=field)) for i, field in fields], gc=False
        )
        #: What an id stands for, by field: None is missing, `?` a category that is not in the vocabulary.
        self.texts_by_id: list[list[str | None]] = [
            [None, "?", *self.categories[field]] for field in encoding.categorical
        ]

    def score(self, rows: Sequence[EncodedRow]) -> list[float]:
        """Return the rows' probabilities. Raises RuntimeError if the model cannot score them."""
        ids, numbers = stack_rows(rows)
        try:
            scores: list[float] = self._session.run(["score"], {"ids": ids, "numbers": numbers})[0].ravel().tolist()
        # ONNX Runtime's errors have no base class but Exception.
        except Exception as error:
            raise RuntimeError(f"version {self.version} cannot score: {_one_line(error)}") from error
        return scores


def load_model(
    reference: VersionReference,
    options: LoadOptions,
    open_store: StoreFactory | None = None,
    lookups: Lookups | None = None,
) -> ServableModel:
    """Return the version once every file's digest is checked and its examples are scored. Raises Corrupt or Unavailable.

    It takes over the `lookups` of the version that is served now if it looks up the same, so that a swap costs neither the
    time nor the memory to build them again. It does so last, because another thread uses them, and the examples are scored
    without a past. Otherwise it reads a store of its own.
    """
    started_at = time.perf_counter()
    manifest, folder = _read_manifest(reference)
    files = {name: _read_checked(folder, name, facts) for name, facts in manifest.files.items()}
    try:
        encoding = Encoding.from_dict(json.loads(files["encoding.json"]))
        examples = json.loads(files["examples.json"])
        session = _open_session(files[manifest.graph], options.threads)
        aggregates = manifest.columns.aggregates
        fields = RowEncoder(encoding, aggregates.features).fields
        take_over = lookups is not None and lookups.matches(aggregates, fields)
        online_store = open_store() if open_store is not None and aggregates.groups and not take_over else None
        keys, lenient = manifest.columns.keys, options.lenient
        rows = RowReader(encoding, keys, options.max_rows, lenient, aggregates=aggregates, store=online_store)
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{reference.uri}: {type(error).__name__}: {_one_line(error)}") from None
    _check_inputs(reference, encoding, session)
    model = ServableModel(reference, manifest, encoding, rows, session)
    _warm_up(model, examples)
    if take_over:
        rows.lookups = lookups
    model.load_seconds = time.perf_counter() - started_at
    return model


def _read_manifest(reference: VersionReference) -> tuple[ModelManifest, Path]:
    """Return the manifest and the folder that holds its files."""
    parts = urlsplit(reference.uri)
    if parts.scheme not in ("", "file"):
        raise Unavailable(f"{reference.uri}: this server reads artifacts from disk; mount {parts.scheme}:// there")
    path = Path(unquote(parts.path) if parts.scheme else reference.uri)
    data = _read(path)
    if reference.digest is not None and hashlib.sha256(data).hexdigest() != reference.digest:
        raise Corrupt(f"{path}: the manifest's digest is not the registered {reference.digest[:12]}…")
    return store.decode(data, ModelManifest, str(path)), path.parent


def _read_checked(folder: Path, name: str, facts: FileFacts) -> bytes:
    if Path(name).name != name:
        raise Corrupt(f"{folder}: the manifest names a file outside its folder: {name}")
    data = _read(folder / name)
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise Corrupt(f"{folder / name}: its digest differs from the manifest's")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None


def _open_session(onnx: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Its arena keeps what the largest batch so far took, twice as much as that; without it a run takes no longer.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors have no base class but Exception.
    except Exception as error:
        raise ValueError(_one_line(error)) from None


def _check_inputs(reference: VersionReference, encoding: Encoding, session: ort.InferenceSession) -> None:
    widths = {i.name: i.shape[-1] for i in session.get_inputs()}
    expected = {"ids": len(encoding.categorical), "numbers": len(encoding.numeric)}
    if widths != expected:
        raise Corrupt(f"{reference.uri}: the model takes {widths}, its encoding gives {expected}")


def _warm_up(model: ServableModel, examples: Sequence[Mapping[str, object]]) -> None:
    """Score the examples one by one and together, as requests will. Raises Corrupt if that fails: such a model must not serve."""
    try:
        rows = [model.rows.encode_example(e) for e in examples]
        single = [model.score([row])[0] for row in rows]
        together = model.score(rows)
    except (msgspec.ValidationError, RequestError, RuntimeError, ValueError) as error:
        raise Corrupt(f"{model.reference.uri}: its own examples fail: {_one_line(error)}") from None
    bad = [s for s in (*single, *together) if not 0 <= s <= 1]
    if bad:
        raise Corrupt(f"{model.reference.uri}: its own examples score {bad[0]}, which is no probability")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
