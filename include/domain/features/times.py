"""Times of raw rows, and the parts of them that are categories."""

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from include.domain.categories import quote

TIME_PARTS: dict[str, Callable[[datetime], int]] = {
    "hour": lambda at: at.hour,
    "weekday": lambda at: at.weekday(),
    "month": lambda at: at.month,
}


def as_time(value: Any) -> datetime:
    """Return a datetime, an ISO 8601 text or epoch seconds as a datetime with a zone; without one it is UTC.

    Raises ValueError for anything else.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return datetime.fromtimestamp(value, UTC)
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{quote(value)} is not an ISO time or epoch seconds") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def time_part(part: str, times: Iterable[Any], zone: str) -> list[str | None]:
    """Return `hour` (0–23), `weekday` (Monday is 0) or `month` (1–12) of each time in the zone, as text.

    Raises ValueError for a value that is no time.
    """
    local, part_of = ZoneInfo(zone), TIME_PARTS[part]
    try:
        return [None if time is None else str(part_of(as_time(time).astimezone(local))) for time in times]
    except OverflowError as error:
        raise ValueError(str(error)) from None
