"""Windows of time: half open, `[start, end)`, UTC, an hour or a day long."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Grain(StrEnum):
    HOUR = "hour"
    DAY = "day"

    @property
    def length(self) -> timedelta:
        return timedelta(hours=1) if self is Grain.HOUR else timedelta(days=1)

    def floor(self, at: datetime) -> datetime:
        """The start of the window that holds `at`."""
        utc = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return utc if self is Grain.HOUR else utc.replace(hour=0)


@dataclass(frozen=True, order=True)
class Window:
    """`[start, end)`; both in UTC. Raises ValueError for an empty or naive one."""

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
        return f"{label(self.start)} to {label(self.end)}"

    def split(self, grain: Grain) -> Iterator["Window"]:
        """The grain's windows that this one covers, oldest first; the ends are widened to the grain."""
        start = grain.floor(self.start)
        while start < self.end:
            yield Window(start, start + grain.length)
            start += grain.length


def label(start: datetime) -> str:
    """The name of the window that starts there: `2013-04-01`, or `2013-04-01T05` within a day."""
    return start.astimezone(UTC).strftime("%Y-%m-%d" if start.hour == 0 else "%Y-%m-%dT%H")


def parse(text: str) -> datetime:
    """An ISO date or time as UTC; without a zone it is taken as UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def window_of(name: str, grain: Grain) -> Window:
    """Return the window that has this label. Raises ValueError for a text that is no label."""
    return Window(parse(name), parse(name) + grain.length)


def window_label(number: int, grain: Grain) -> str:
    """Return the label of the window that starts `number` grains after 1970."""
    return label(datetime.fromtimestamp(0, UTC) + number * grain.length)
