"""What a spec says of the data: where the rows are, which column is what, what is made of them, what is expected of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from include.domain.bounds import PositiveInt, Range, Share
from include.domain.features.aggregates import Aggregates
from include.domain.features.encoding import TIME_PARTS
from include.domain.features.transforms import Transform
from include.domain.windows import Window


class Section(BaseModel):
    """A part of the spec: it cannot be changed, knows every key that is allowed, and holds no infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(Section):
    """Where the raw files are: a file, a folder or a glob, relative to Perennial's home unless absolute or a URI.

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
        return "{window" in self.path or "{n}" in self.path

    def path_of(self, window: Window) -> str:
        """The path of the window's own file or folder."""
        number = window.number_since(self.first) if self.first else 0
        return self.path.format(window=window.start, n=number)

    @field_validator("first")
    @classmethod
    def _in_utc(cls, first: datetime | None) -> datetime | None:
        return first.replace(tzinfo=UTC) if first and first.tzinfo is None else first

    @model_validator(mode="after")
    def _counted_from_somewhere(self) -> Self:
        if "{n}" in self.path and self.first is None:
            raise ValueError("{n} in the path counts windows: say at which it is 0, e.g. first: 2024-01-01")
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.connection and not self.path.startswith("s3://"):
            raise ValueError(f"connection: {self.path} needs none; it is for an s3:// path")
        if self.format == "delta" and any(sign in self.path for sign in "*?["):
            raise ValueError(f"path: {self.path}: a Delta table is one folder, without wildcards")
        return self


class Columns(Section):
    """Which column is what. A column of the source that stands nowhere here is an error, so that none is lost quietly."""

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
        return (*self.categorical, *self.numeric)

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        fields = [
            self.label,
            *self.features,
            *self.outcomes,
            *self.ignored,
            *(c for c in (self.known, self.weight) if c),
        ]
        twice = sorted({f for f in fields if fields.count(f) > 1})
        if twice:
            raise ValueError(f"named more than once: {', '.join(twice)}")
        if not self.features:
            raise ValueError("a model needs at least one numeric or categorical column")
        can_be = {"window": (self.time,), "place": self.keys}
        if odd := [f"{name}: {what}" for name, what in self.added.items() if name not in can_be[what]]:
            raise ValueError(f"added: {', '.join(odd)}: `window` can only be the time and `place` only a key")
        if self.zone not in available_timezones():
            raise ValueError(f"{self.zone} is not a time zone of the IANA list, e.g. UTC or Europe/Berlin")
        return self


class Features(Section):
    time_parts: tuple[str, ...] = ()
    min_frequency: PositiveInt = 20
    max_ids: PositiveInt | None = None  #: of all categories together the most frequent; the rest is unknown
    transforms: tuple[Transform, ...] = ()
    engine: Literal["duckdb", "spark"] = "duckdb"  #: what adds up the aggregates' sums
    aggregates: Aggregates = Aggregates()

    @field_validator("time_parts")
    @classmethod
    def _known(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [p for p in parts if p not in TIME_PARTS]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: known are {', '.join(TIME_PARTS)}")
        return parts


class Expectation(Section):
    """A Great Expectations expectation by its class name, e.g. `expect_column_values_to_be_between`."""

    expect: str
    severity: Literal["warn", "fail"] = "fail"
    arguments: Mapping[str, Any] = {}


class Validation(Section):
    max_quarantined: Share = 0.01
    max_nulls: Share = 0.5
    max_nulls_of: Mapping[str, Share] = {}  #: another bound for some columns
    warn_nulls_of: tuple[str, ...] = ()  #: columns whose missing values only warn
    volume: Range = (0.3, 3.0)  #: rows, as a share of the median of the last windows
    max_label_shift: Share = 0.3  #: label rate against the median of the last windows
    max_unseen: Share = 0.3  #: share of rows with a category that no last window had
    max_silence: Share = 0.5  #: the end of a window without a row, as a share of its length
    expectations: tuple[Expectation, ...] = ()
