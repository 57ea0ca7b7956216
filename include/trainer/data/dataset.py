"""The dataset on disk as memory-mapped arrays, checked against its record."""

import hashlib
import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.errors import Corrupt, UserMistake
from include.domain.features.encoding import Encoding

SPLITS = ("train", "validate", "test")
PARTS = ("ids", "numbers", "labels", "times")


@dataclass(frozen=True)
class Split:
    """The rows of some windows: ids `[n, C]`, numbers `[n, N]` (NaN is missing), labels `[n]`, times `[n]` (epoch s),
    and what each counts for in the loss, `[n]` with mean 1, where the spec names a column of weights."""

    ids: NDArray[np.int32]
    numbers: NDArray[np.float32]
    labels: NDArray[np.float32]
    times: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def let_go(self) -> None:
        """Of the pages that were read from disk: they count as the process's memory, and stay in the system's cache."""
        for part in (self.ids, self.numbers, self.labels, self.times, self.weights):
            if part is not None and isinstance(part.base, mmap.mmap):
                part.base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Fields:
    """What a model is made of: the encoding but for its texts, which would take twice the memory of their embeddings."""

    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    sizes: list[int]  #: ids per categorical field
    knots: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, encoding: Encoding) -> "Fields":
        return cls(encoding.categorical, encoding.numeric, encoding.sizes, encoding.knots)


@dataclass(frozen=True)
class Dataset:
    record: dict[str, Any]  #: `dataset.json`
    folder: Path
    fields: Fields
    train: Split
    validate: Split
    test: Split


def load(path: Path, digest: str) -> Dataset:
    """The dataset at `dataset.json`. Raises Corrupt where a digest differs, UserMistake where nothing can be learnt."""
    if not path.is_file():
        raise UserMistake(f"{path}: there is no dataset; run the features stage again")
    _check(path, digest)
    record, folder = json.loads(path.read_text(encoding="utf-8")), path.parent
    for name, facts in record["files"].items():
        _check(folder / name, facts["sha256"])
    fields = Fields.of(encoding(folder / "encoding.json"))
    splits = {name: _split(folder, name) for name in SPLITS}
    for name, split in splits.items():
        _refuse_useless(name, split, record["windows"][name])
    return Dataset(record, folder, fields, **splits)


def encoding(path: Path) -> Encoding:
    """With all texts."""
    return Encoding.from_dict(json.loads(path.read_bytes()))


def _split(folder: Path, name: str) -> Split:
    parts = [*PARTS, *(["weights"] if (folder / f"{name}.weights.npy").is_file() else [])]
    return Split(*(np.load(folder / f"{name}.{part}.npy", mmap_mode="r", allow_pickle=False) for part in parts))


def _refuse_useless(name: str, split: Split, windows: list[str]) -> None:
    span = f"{windows[0]} to {windows[-1]}" if windows else "no window"
    if not len(split):
        raise UserMistake(f"{name}: no rows in {span}; land data there or change the windows of the spec")
    positives = int(split.labels.sum())
    if positives in (0, len(split)):
        wants = "learning" if name == "train" else "measuring"
        raise UserMistake(f"{name}: all {len(split)} labels of {span} are {int(positives > 0)}; {wants} needs both")


def _check(path: Path, digest: str) -> None:
    if not path.is_file():
        raise Corrupt(f"{path}: the dataset's record names it, but it is not there; run the features stage again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise Corrupt(f"{path}: its SHA-256 is not the recorded one; run the features stage again")
