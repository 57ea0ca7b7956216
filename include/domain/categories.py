"""The one spelling of a category and the one reading of a number, wherever a raw value comes from."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

#: Stands between the values of several columns that name one thing together.
SEPARATOR = "|"
#: Characters of a value that a message quotes.
QUOTED_LENGTH = 60


def as_text(value: Any) -> str | None:
    """Return the one spelling of a category: `1`, `1.0` and `"1"` are the same; None, NaN and "" are missing."""
    if value is None or value == "" or value != value:  # noqa: PLR0124 (NaN of any kind)
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def join_texts(texts: Sequence[str | None]) -> str | None:
    """Return several columns' values as one text; None where one is missing."""
    return None if None in texts else SEPARATOR.join(cast(Sequence[str], texts))


def as_number(field: str, value: Any) -> float:
    """Return the value as a float, NaN where it is missing. Raises ValueError naming the field and the value."""
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{field}: {quote(value)} is not a number") from None


def quote(value: Any) -> str:
    """Return the value as Python writes it, for a message; a long one is cut."""
    text = repr(value)
    return text if len(text) <= QUOTED_LENGTH else f"{text[:QUOTED_LENGTH]}…"
