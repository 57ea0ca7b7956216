"""The dataset on disk as memory-mapped arrays, checked against its manifest."""

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.store import Reference
from include.domain.errors import UserMistake
from include.domain.features.encoding import Encoding

ARRAYS = ("ids", "numbers", "labels", "times")


@dataclass(frozen=True)
class Split:
    """The rows of some windows. `weights`, with mean 1, say how much each row counts in the loss; None is alike."""

    ids: NDArray[np.int32]  #: `[n, C]`, a categorical field a column
    numbers: NDArray[np.float32]  #: `[n, N]`, NaN where missing
    labels: NDArray[np.float32]  #: `[n]`
    times: NDArray[np.int64]  #: epoch s `[n]`
    weights: NDArray[np.float32] | None = None  #: `[n]`

    def __len__(self) -> int:
        return len(self.labels)

    def release_pages(self) -> None:
        """Let go of the pages read from disk so far: they count as the process's memory, and stay in the system's cache."""
        for array in (self.ids, self.numbers, self.labels, self.times, self.weights):
            if array is not None and isinstance(array.base, mmap.mmap):
                array.base.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Fields:
    """What a network is made of: the encoding without its texts, which would take twice the memory of their embeddings."""

    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    sizes: list[int]  #: ids per categorical field
    knots: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, encoding: Encoding) -> "Fields":
        """Return the fields of an encoding."""
        return cls(encoding.categorical, encoding.numeric, encoding.sizes, encoding.knots)


@dataclass(frozen=True)
class Dataset:
    """A dataset with its three splits, whose arrays are read from disk as they are used."""

    manifest: DatasetManifest
    folder: Path
    fields: Fields
    train: Split
    validate: Split
    test: Split


def load(path: Path, digest: str) -> Dataset:
    """Return the dataset at `dataset.json`. Raises Corrupt where a digest differs, UserMistake where nothing can be learnt."""
    if not path.is_file():
        raise UserMistake(f"{path}: there is no dataset; run the features stage again")
    manifest, folder = store.read(Reference(str(path), digest), DatasetManifest), path.parent
    store.check_files(path, manifest.files)
    fields = Fields.of(read_encoding(folder / "encoding.json"))
    splits = {name: _read_split(folder, name) for name, _ in manifest.windows.items()}
    for name, windows in manifest.windows.items():
        _check_both_classes(name, splits[name], windows)
    return Dataset(manifest, folder, fields, **splits)


def read_encoding(path: Path) -> Encoding:
    """Return the encoding with all its texts."""
    return Encoding.from_dict(json.loads(path.read_bytes()))


def _read_split(folder: Path, name: str) -> Split:
    arrays = [*ARRAYS, *(["weights"] if (folder / f"{name}.weights.npy").is_file() else [])]
    return Split(*(np.load(folder / f"{name}.{array}.npy", mmap_mode="r", allow_pickle=False) for array in arrays))


def _check_both_classes(name: str, split: Split, windows: Sequence[str]) -> None:
    span = f"{windows[0]} to {windows[-1]}" if windows else "no window"
    if not len(split):
        raise UserMistake(f"{name}: no rows in {span}; land data there or change the windows of the spec")
    positives = int(split.labels.sum())
    if positives in (0, len(split)):
        purpose = "learning" if name == "train" else "measuring"
        raise UserMistake(f"{name}: all {len(split)} labels of {span} are {int(positives > 0)}; {purpose} needs both")
