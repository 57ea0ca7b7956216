"""A model version in memory: checked against its manifest, warmed up, ready to score."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
import onnxruntime as ort

from include.domain.errors import Corrupt, Unavailable
from include.domain.features.aggregates import Aggregates
from include.domain.features.encoding import Encoding, RowEncoder
from include.online_store.store import OnlineStore
from include.server.answers import Refused
from include.server.lookups import Lookups
from include.server.rows import Encoded, Rows, tensors

#: Opens the online store anew; None where there is none.
Open = Callable[[], OnlineStore] | None


@dataclass(frozen=True)
class Named:
    """A version as its source names it: its number, and its manifest by place and SHA-256 (None: not checked)."""

    version: str
    uri: str
    digest: str | None


@dataclass(frozen=True)
class Limits:
    """Rows of one request, threads of one inference, and whether unknown columns are dropped instead of refused."""

    max_rows: int = 1024
    threads: int = 1
    lenient: bool = False


class Model:
    def __init__(self, named: Named, manifest: dict[str, Any], encoding: Encoding, rows: Rows, session: Any) -> None:
        self.named, self.version, self.manifest = named, named.version, manifest
        self.encoding, self.rows, self._session = encoding, rows, session
        self.log_share = float(manifest.get("serving", {}).get("log_share", 1))
        self.loaded_at, self.load_seconds = time.time(), 0.0
        self.sizes = np.array(encoding.sizes, dtype=np.uint64)
        self.texts = {field: sorted(v, key=v.__getitem__) for field, v in encoding.vocabulary.items()}
        fields = enumerate((*encoding.categorical, *encoding.numeric))
        #: An encoded row's values by their fields' names.
        self.type = msgspec.defstruct("Row", [(f"c{i}", Any, msgspec.field(name=f)) for i, f in fields], gc=False)
        self.spelt: list[list[str | None]] = [[None, "?", *self.texts[field]] for field in encoding.categorical]

    def score(self, rows: Sequence[Encoded]) -> list[float]:
        """Their probabilities. Raises RuntimeError when the model cannot."""
        ids, numbers = tensors(rows)
        try:
            scores: list[float] = self._session.run(["score"], {"ids": ids, "numbers": numbers})[0].ravel().tolist()
        # ONNX Runtime's errors have no base class but Exception.
        except Exception as fault:
            raise RuntimeError(f"version {self.version} cannot score: {_line(fault)}") from fault
        return scores


def load(named: Named, limits: Limits, open_store: Open = None, lookups: Lookups | None = None) -> Model:
    """The version, every file's digest checked and the examples scored. Raises Corrupt or Unavailable.

    It takes over the `lookups` of the version that is served where they tell the same, so that a swap builds the past anew
    neither in time nor in memory. It does so last: another thread uses them, and the examples are scored without a past.
    Otherwise it has read a store of its own by the time it serves.
    """
    begun = time.perf_counter()
    manifest, folder = _manifest(named)
    files = {name: _checked(folder, name, entry) for name, entry in manifest["files"].items()}
    try:
        encoding = Encoding.from_dict(json.loads(files["encoding.json"]))
        examples = json.loads(files["examples.json"])
        session = _session(files[manifest.get("graph", "model.onnx")], limits.threads)
        aggregates = msgspec.convert(manifest["columns"].get("aggregates", {}), Aggregates)
        same = lookups is not None and lookups.tells(aggregates, RowEncoder(encoding, aggregates.features).fields)
        store = open_store() if open_store is not None and aggregates.groups and not same else None
        rows = Rows(encoding, manifest["columns"]["keys"], limits.max_rows, limits.lenient,
                    aggregates=aggregates, store=store)  # fmt: skip
    except (KeyError, TypeError, ValueError) as fault:
        raise Corrupt(f"{named.uri}: {type(fault).__name__}: {_line(fault)}") from None
    _check_inputs(named, encoding, session)
    model = Model(named, {k: v for k, v in manifest.items() if k != "files"}, encoding, rows, session)
    _warm_up(model, examples)
    if same:
        rows.lookups = lookups
    model.load_seconds = time.perf_counter() - begun
    return model


def _manifest(named: Named) -> tuple[dict[str, Any], Path]:
    parts = urlsplit(named.uri)
    if parts.scheme not in ("", "file"):
        raise Unavailable(f"{named.uri}: this server reads artifacts from disk; mount {parts.scheme}:// there")
    path = Path(unquote(parts.path) if parts.scheme else named.uri)
    data = _read(path)
    if named.digest is not None and hashlib.sha256(data).hexdigest() != named.digest:
        raise Corrupt(f"{path}: the manifest's digest is not the registered {named.digest[:12]}…")
    try:
        manifest = json.loads(data)
        manifest["files"]["model.onnx"], manifest["columns"]["keys"]
    except (KeyError, TypeError, ValueError) as fault:
        raise Corrupt(f"{path}: not a model manifest: {type(fault).__name__} {_line(fault)}") from None
    return manifest, path.parent


def _checked(folder: Path, name: str, entry: dict[str, Any]) -> bytes:
    if Path(name).name != name:
        raise Corrupt(f"{folder}: the manifest names a file outside its folder: {name}")
    data = _read(folder / name)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Corrupt(f"{folder / name}: its digest differs from the manifest's")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise Unavailable(f"{path}: {fault.strerror}") from None


def _session(onnx: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Its arena keeps what the largest batch so far took, twice as much as that; without it a run takes no longer.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors have no base class but Exception.
    except Exception as fault:
        raise ValueError(_line(fault)) from None


def _check_inputs(named: Named, encoding: Encoding, session: Any) -> None:
    widths = {i.name: i.shape[-1] for i in session.get_inputs()}
    expected = {"ids": len(encoding.categorical), "numbers": len(encoding.numeric)}
    if widths != expected:
        raise Corrupt(f"{named.uri}: the model takes {widths}, its encoding gives {expected}")


def _warm_up(model: Model, examples: list[dict[str, Any]]) -> None:
    """Score the examples one by one and together, as requests will; a model that cannot must not serve."""
    try:
        encoded = [model.rows.example(e) for e in examples]
        single = [model.score([row])[0] for row in encoded]
        together = model.score(encoded)
    except (msgspec.ValidationError, Refused, RuntimeError, ValueError) as fault:
        raise Corrupt(f"{model.named.uri}: its own examples fail: {_line(fault)}") from None
    bad = [s for s in (*single, *together) if not 0 <= s <= 1]
    if bad:
        raise Corrupt(f"{model.named.uri}: its own examples score {bad[0]}, which is no probability")


def _line(fault: BaseException) -> str:
    return " ".join(str(fault).split())[:300]
