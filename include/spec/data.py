"""What a spec says of the data: where the rows are, which column is what, which features are made, what is expected."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from include.domain.bounds import PositiveInt, Range, Share
from include.domain.features.aggregates import Aggregates
from include.domain.features.times import TIME_PARTS
from include.domain.features.transforms import Transform
from include.domain.windows import Window


class Section(BaseModel):
    """A part of a spec. It cannot be changed, refuses keys that it does not have, and holds no infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceSpec(Section):
    """The place of the raw files: a file, a folder or a glob, relative to Perennial's home unless absolute or a URI.

    `{window:%Y-%m-%d}` in the path (any strftime form) stands for a window's start: that window's own file or folder.
    `{n}` stands for its number, counted from 0 for the window that starts at `first`.
    """

    path: str
    format: Literal["csv", "tsv", "parquet", "delta"] = "parquet"
    names: tuple[str, ...] = ()  #: for files without a header
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)  #: the format's own when left out
    nulls: tuple[str, ...] = ("",)  #: texts that mean a missing value
    first: datetime | None = None  #: the start of the window whose `{n}` is 0
    connection: str | None = None  #: Airflow's, for an `s3://` path; the environment's credentials when left out

    @property
    def by_window(self) -> bool:
        """Whether each window has a file or folder of its own."""
        return "{window" in self.path or "{n}" in self.path

    def path_of(self, window: Window) -> str:
        """Return the path of the window's own file or folder."""
        number = window.number_since(self.first) if self.first else 0
        return self.path.format(window=window.start, n=number)

    @field_validator("first")
    @classmethod
    def _in_utc(cls, first: datetime | None) -> datetime | None:
        return first.replace(tzinfo=UTC) if first and first.tzinfo is None else first

    @model_validator(mode="after")
    def _numbers_count_from_a_first_window(self) -> Self:
        if "{n}" in self.path and self.first is None:
            raise ValueError("{n} in the path counts windows: say at which it is 0, e.g. first: 2024-01-01")
        return self

    @model_validator(mode="after")
    def _path_fits_connection_and_format(self) -> Self:
        if self.connection and not self.path.startswith("s3://"):
            raise ValueError(f"connection: {self.path} needs none; it is for an s3:// path")
        if self.format == "delta" and any(wildcard in self.path for wildcard in "*?["):
            raise ValueError(f"path: {self.path}: a Delta table is one folder, without wildcards")
        return self


class Columns(Section):
    """The role of each column. A column of the source that is named nowhere here is an error, so that none is lost quietly."""

    time: str
    zone: str = "UTC"
    time_format: str | None = None  #: strftime form, for times that are neither ISO 8601 nor an epoch
    label: str
    known: str | None = None  #: the time at which the label is known; without it, `label_delay` after the event
    outcomes: tuple[str, ...] = ()  #: numbers known only with the label: no feature, but aggregates may sum them up
    keys: tuple[str, ...] = Field(min_length=1)
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    weight: str | None = None  #: what a row counts for in training, at least 0; 1 where it is missing
    ignored: tuple[str, ...] = ()
    #: the time or a key that the source does not have: the start of the file's own `window`, the row's `place` in its file
    added: Mapping[str, Literal["window", "place"]] = {}

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of a raw row that the model takes, categorical ones first."""
        return (*self.categorical, *self.numeric)

    @model_validator(mode="after")
    def _each_is_named_once(self) -> Self:
        optional = [column for column in (self.known, self.weight) if column]
        names = [self.label, *self.features, *self.outcomes, *self.ignored, *optional]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"named more than once: {', '.join(repeated)}")
        if not self.features:
            raise ValueError("a model needs at least one numeric or categorical column")
        return self

    @model_validator(mode="after")
    def _only_time_and_keys_are_added(self) -> Self:
        addable = {"window": (self.time,), "place": self.keys}
        if wrong := [f"{name}: {content}" for name, content in self.added.items() if name not in addable[content]]:
            raise ValueError(f"added: {', '.join(wrong)}: `window` can only be the time and `place` only a key")
        return self

    @field_validator("zone")
    @classmethod
    def _is_a_time_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f"{zone} is not a time zone of the IANA list, e.g. UTC or Europe/Berlin")
        return zone


class Features(Section):
    """What is made of the columns, and which categories get an id of their own."""

    time_parts: tuple[str, ...] = ()
    min_frequency: PositiveInt = 20
    max_ids: PositiveInt | None = None  #: of all categories together the most frequent; the rest is unknown
    transforms: tuple[Transform, ...] = ()
    engine: Literal["duckdb", "spark"] = "duckdb"  #: what adds up the aggregates' sums
    aggregates: Aggregates = Aggregates()

    @field_validator("time_parts")
    @classmethod
    def _are_parts_of_a_time(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [part for part in parts if part not in TIME_PARTS]:
            raise ValueError(f"{', '.join(unknown)}: known are {', '.join(TIME_PARTS)}")
        return parts


class Expectation(Section):
    """A Great Expectations expectation by its class name, e.g. `expect_column_values_to_be_between`."""

    expect: str
    severity: Literal["warn", "fail"] = "fail"
    arguments: Mapping[str, Any] = {}


class Validation(Section):
    """What is expected of every landed window, beside the user's own `expectations`."""

    max_quarantined: Share = 0.01
    max_nulls: Share = 0.5
    max_nulls_of: Mapping[str, Share] = {}  #: another bound for some columns
    warn_nulls_of: tuple[str, ...] = ()  #: columns whose missing values only warn
    volume: Range = (0.3, 3.0)  #: rows, as a share of the median of the last windows
    max_label_shift: Share = 0.3  #: label rate against the median of the last windows
    max_unseen: Share = 0.3  #: share of rows with a category that no last window had
    max_silence: Share = 0.5  #: the end of a window without a row, as a share of its length
    expectations: tuple[Expectation, ...] = ()
