"""`dataset.json`: which rows a training learns from, and the files that hold them as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from include.artifacts.atomic_write import FileFacts
from include.domain.features.aggregates import Aggregates

DATASET_FORMAT = 1


@dataclass(frozen=True)
class SplitWindows:
    """The labels of the windows in each split, oldest first."""

    train: tuple[str, ...]
    validate: tuple[str, ...]
    test: tuple[str, ...]

    def items(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the splits with their names, oldest first."""
        return [("train", self.train), ("validate", self.validate), ("test", self.test)]

    @property
    def all(self) -> tuple[str, ...]:
        """The windows of all splits, oldest first."""
        return (*self.train, *self.validate, *self.test)


@dataclass(frozen=True)
class SplitCounts:
    """A number of rows for each split."""

    train: int
    validate: int
    test: int


@dataclass(frozen=True)
class DatasetColumns:
    """The columns of the features table that a model is made of, by their part in it."""

    time: str
    label: str
    keys: tuple[str, ...]
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    aggregates: Aggregates = field(default_factory=Aggregates)

    @property
    def features(self) -> tuple[str, ...]:
        """The categorical columns, then the numeric ones."""
        return (*self.categorical, *self.numeric)


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """What a dataset is made of.

    `table_version` and `sums_version` are the versions of the features table and of the hourly sums that were read; None
    where there is no such table. `rows` and `positives` count the labelled rows of each split. `spec` is the whole spec as
    JSON. `notes` are sentences about columns that will not help a model.
    """

    format: int = DATASET_FORMAT
    model: str
    run: str
    as_of: str
    table: str
    table_version: int | None
    sums_version: int | None
    windows: SplitWindows
    rows: SplitCounts
    positives: SplitCounts
    notes: tuple[str, ...] = ()
    columns: DatasetColumns
    spec: Mapping[str, Any] = field(repr=False)
    spec_digest: str
    files: Mapping[str, FileFacts]
