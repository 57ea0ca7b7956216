"""The one spelling of a category and the one reading of a number, wherever a raw value comes from."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Stands between the parts of what several columns name together.
BETWEEN = "|"


def as_text(value: Any) -> str | None:
    """The one spelling of a category: `1`, `1.0` and `"1"` are the same; None, NaN and "" are missing."""
    if value is None or value == "" or value != value:  # noqa: PLR0124 (NaN of any kind)
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def joined(texts: Sequence[str | None]) -> str | None:
    """Several columns' values as one name; None where one is missing."""
    return None if None in texts else BETWEEN.join(texts)  # type: ignore[arg-type]


def as_number(field: str, value: Any) -> float:
    """NaN where missing. Raises ValueError naming the field and the value."""
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{field}: {shown(value)} is not a number") from None


def shown(value: Any) -> str:
    """The value for a message, cut where it is hostile."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
