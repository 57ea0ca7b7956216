"""Windows of time: half open, `[start, end)`, in UTC, an hour or a day long. All arithmetic on windows is done here."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime.fromtimestamp(0, UTC)


class Grain(StrEnum):
    """The length of a model's windows."""

    HOUR = "hour"
    DAY = "day"

    @property
    def length(self) -> timedelta:
        """The length of a window."""
        return HOUR if self is Grain.HOUR else DAY

    @property
    def seconds(self) -> int:
        """The length of a window in seconds."""
        return int(self.length.total_seconds())

    @property
    def interval(self) -> str:
        """The length of a window as polars writes durations."""
        return "1h" if self is Grain.HOUR else "1d"

    def floor(self, at: datetime) -> datetime:
        """Return the start of the window that holds `at`."""
        utc = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return utc if self is Grain.HOUR else utc.replace(hour=0)

    def window_at(self, at: datetime) -> "Window":
        """Return the window that holds `at`."""
        start = self.floor(at)
        return Window(start, start + self.length)


@dataclass(frozen=True, order=True)
class Window:
    """The span of time `[start, end)`; both ends have a time zone. Raises ValueError for a span that is empty or naive."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError(f"a window needs time zones: {self.start} to {self.end}")
        if self.start >= self.end:
            raise ValueError(f"a window must end after it starts: {self.start} to {self.end}")

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def __str__(self) -> str:
        return f"{window_label(self.start)} to {window_label(self.end)}"

    @property
    def label(self) -> str:
        """The window's name in tables and records: `2013-04-01`, or `2013-04-01T05` within a day."""
        return window_label(self.start)

    @property
    def length(self) -> timedelta:
        """The time from start to end."""
        return self.end - self.start

    def split(self, grain: Grain) -> Iterator["Window"]:
        """Yield the grain's windows that this span touches, oldest first."""
        window = grain.window_at(self.start)
        while window.start < self.end:
            yield window
            window = window.shifted(1)

    def shifted(self, count: int) -> "Window":
        """Return the window that lies `count` lengths later, or earlier where `count` is negative."""
        return Window(self.start + count * self.length, self.end + count * self.length)

    def preceding(self, count: int) -> list["Window"]:
        """Return the `count` windows of this length before this one, newest first."""
        return [self.shifted(-n) for n in range(1, count + 1)]

    def number_since(self, first: datetime) -> int:
        """Return how many windows of this length lie between `first` and the start of this one."""
        return (self.start - first) // self.length

    def share_after(self, at: datetime) -> float:
        """Return the part of the window that lies after `at`, as a share of its length."""
        return (self.end - at) / self.length


def window_label(start: datetime) -> str:
    """Return the label of the window that starts there: `2013-04-01`, or `2013-04-01T05` within a day."""
    text = start.astimezone(UTC).isoformat()  # strftime leaves the zeros of a year before 1000 out
    return text[: len("2013-04-01")] if start.hour == 0 else text[: len("2013-04-01T05")]


def window_of(label: str, grain: Grain) -> Window:
    """Return the window that has this label. Raises ValueError for a text that is no label."""
    start = parse_utc(label)
    return Window(start, start + grain.length)


def parse_utc(text: str) -> datetime:
    """Return an ISO 8601 date or time in UTC; one without a time zone is taken as UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def group_by_window(times: NDArray[Any], grain: Grain) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return the labels of the windows that hold these times, oldest first, and for each time the index of its label.

    `times` are epoch seconds `[n]`, whole or not; the index is `[n]` too.
    """
    numbers, index = np.unique(np.floor_divide(times, grain.seconds), return_inverse=True)
    labels = tuple(window_label(EPOCH + int(number) * grain.length) for number in numbers)
    return labels, index.astype(np.intp)
