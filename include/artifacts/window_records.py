"""Records of what the data DAG did to a model's windows, one small JSON document each.

A field is named as its key in the JSON. `kind` is the folder of the records of a class; their names are window labels, those
of landing reports run ids.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

import msgspec

from include.domain.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class WindowRecord:
    """A JSON document about one window, or about the windows of one run."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return asdict(self)


R = TypeVar("R", bound=WindowRecord)


def from_json(document: Any, record_type: type[R]) -> R:
    """Return the record in a JSON document. Raises ValueError naming a field that is missing or of another type."""
    return msgspec.convert(document, record_type)


@dataclass(frozen=True)
class DeliveredFile:
    """A source file whose rows are in a window: its SHA-256, None for one whose record was never written.

    `late` says that the file was delivered for another window, so that its rows in this one came late.
    """

    digest: str | None
    late: bool


@dataclass(frozen=True, kw_only=True)
class LandingCounts:
    """What became of the rows of one window: `rows_in = landed + quarantined + duplicates`.

    `late` of the landed rows came with a file of another window. `digest` is that of the landed rows, `table_version` the
    version of the table `landed` that holds them, None for a window that never had any.
    """

    window: str
    rows_in: int
    landed: int
    quarantined: int
    duplicates: int
    late: int
    digest: str
    table_version: int | None


@dataclass(frozen=True, kw_only=True)
class LandedWindow(LandingCounts, WindowRecord):
    """The newest landing of a window: counts, the files whose rows it holds, the spec's digest, the run, and a note."""

    kind = "landed"
    files: Mapping[str, DeliveredFile]
    spec_digest: str
    run: str
    note: str = ""

    @property
    def counts(self) -> LandingCounts:
        """The counts alone."""
        return LandingCounts(**{each.name: getattr(self, each.name) for each in fields(LandingCounts)})


@dataclass(frozen=True, kw_only=True)
class LandingReport(WindowRecord):
    """What one run landed: the windows that it was asked for, and those of late rows. `read` counts the files' records."""

    kind = "landings"
    windows: tuple[LandingCounts, ...]
    read: int

    @property
    def landed(self) -> int:
        """The landed rows of all windows."""
        return sum(window.landed for window in self.windows)

    @property
    def quarantined(self) -> int:
        """The quarantined rows of all windows."""
        return sum(window.quarantined for window in self.windows)

    @property
    def duplicates(self) -> int:
        """The duplicate rows of all windows."""
        return sum(window.duplicates for window in self.windows)


@dataclass(frozen=True, kw_only=True)
class ValidatedWindow(WindowRecord):
    """The verdict on a window's rows with this `digest`, the measures it was judged by, and the page that shows them."""

    kind = "validated"
    verdict: Verdict
    measures: Mapping[str, float | None]
    page: str
    run: str
    digest: str | None
    table_version: int | None
    spec_digest: str

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object; the verdict with its outcome."""
        return {**asdict(self), "verdict": self.verdict.to_dict()}


@dataclass(frozen=True, kw_only=True)
class BuiltWindow(WindowRecord):
    """A window of the table `features`: its rows, their digest, and the digest of the landed rows they were made of."""

    kind = "built"
    window: str
    rows: int
    digest: str
    table_version: int | None
    landed: str
    spec_digest: str
    run: str
