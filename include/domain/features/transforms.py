"""Transforms of a row's own columns. One function of one row is all there is: tables and servers call the same."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

from include.domain.bounds import SECTION, NonNegativeInt
from include.domain.categories import as_number, as_text, joined


@dataclass(frozen=True)
class Transform:
    """A new column `name` made `of` others.

    `log`: a number's logarithm, log(1 + |x|) with the sign of x. `bucket`: a category, how many of the ascending bounds
    `at` a number reaches. `cross`: a category, several columns' values together. `hash`: a category, one of `into`
    classes by CRC-32. Each is missing where one of its columns is.
    """

    __pydantic_config__ = SECTION
    name: str
    kind: Literal["log", "bucket", "cross", "hash"]
    of: tuple[str, ...]
    at: tuple[float, ...] = ()
    into: NonNegativeInt = 0

    def __post_init__(self) -> None:
        """What was kept as JSON comes back with lists."""
        object.__setattr__(self, "of", tuple(self.of))
        object.__setattr__(self, "at", tuple(self.at))

    @property
    def is_number(self) -> bool:
        return self.kind == "log"

    def __call__(self, values: Sequence[Any]) -> Any:
        """From the raw values of the columns `of`. Raises ValueError naming the column of a number that is none."""
        if self.kind in ("log", "bucket"):
            number = as_number(self.of[0], values[0])
            if not math.isfinite(number):
                return None
            return (
                math.copysign(math.log1p(abs(number)), number) if self.is_number else str(bisect_right(self.at, number))
            )
        whole = joined([as_text(value) for value in values])
        return whole if whole is None or self.kind == "cross" else str(crc32(whole.encode()) % self.into)


def faults(transforms: Sequence[Transform], numeric: Sequence[str], categorical: Sequence[str]) -> Iterator[str]:
    """What is wrong with the section, given a spec's columns."""
    taken = {*numeric, *categorical}
    for n, made in enumerate(transforms):
        known = numeric if made.kind in ("log", "bucket") else (*categorical, *numeric)
        if unknown := [c for c in made.of if c not in known]:
            yield f"{n}.of: {', '.join(unknown)}: not one of {', '.join(known)}"
        if (made.kind != "cross" and len(made.of) != 1) or (made.kind == "cross" and len(made.of) < 2):
            yield f"{n}.of: a {made.kind} is of {'two columns or more' if made.kind == 'cross' else 'one column'}"
        if made.kind == "bucket" and (not made.at or list(made.at) != sorted(set(made.at))):
            yield f"{n}.at: a bucket needs bounds that ascend"
        if made.kind == "hash" and made.into < 1:
            yield f"{n}.into: a hash needs a number of classes"
        if made.name in taken:
            yield f"{n}.name: there is a column {made.name} already"
        taken.add(made.name)
