"""Types of a spec's settings with their bounds; pydantic checks them when a spec is loaded (see `include/spec`).

The bounds are metadata of the package `annotated_types`. A dataclass that a program makes itself is not checked.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final

from annotated_types import Ge, Gt, Le, Lt, Predicate

#: Pydantic's configuration of a section of the spec: no unknown keys, no infinite numbers.
SECTION: Final = {"extra": "forbid", "allow_inf_nan": False}
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DurationText:
    """Metadata of a `timedelta` that is written as people write it: `90s`, `10m`, `2h` or `28d`, or as ISO 8601 has it."""

    def __get_pydantic_core_schema__(self, source: type, handler: Callable[[type], Any]) -> Any:
        """Return pydantic's schema of a timedelta, with `parse_duration` before it (pydantic calls this)."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(parse_duration, handler(source))


def parse_duration(value: Any) -> Any:
    """Return the timedelta that a text such as `10m` stands for, and anything else as it is.

    Raises ValueError for a text that is longer than a timedelta can be.
    """
    if not (isinstance(value, str) and re.fullmatch(r"\d+[smhd]", value)):
        return value
    try:
        return timedelta(**{UNITS[value[-1]]: int(value[:-1])})
    except OverflowError:
        raise ValueError(f"{value} is longer than any duration can be") from None


Duration = Annotated[timedelta, Ge(timedelta(0)), DurationText()]
PositiveDuration = Annotated[timedelta, Gt(timedelta(0)), DurationText()]

#: A number of things of which there is at least one, and one that may be 0.
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]

#: A part of a whole, which may be the whole; one that is less than the whole; and a probability that is never certain.
Share = Annotated[float, Ge(0), Le(1)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Confidence = Annotated[float, Gt(0), Lt(1)]
#: How far two shares may differ: more than not at all.
ShareMargin = Annotated[float, Gt(0), Le(1)]


def in_order(limits: tuple[float, float]) -> bool:
    """Return True for a least and a greatest value, in this order; raises ValueError otherwise."""
    least, greatest = limits
    if least > greatest:
        raise ValueError(f"the least, {least:g}, is above the greatest, {greatest:g}")
    return True


#: Least and greatest of a quantity that is not negative.
Range = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Predicate(in_order)]
