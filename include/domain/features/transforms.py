"""Transforms of a row's own columns. There is one function of one row, which tables and servers both call."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

from include.domain.bounds import SECTION, NonNegativeInt
from include.domain.categories import as_number, as_text, join_texts


@dataclass(frozen=True)
class Transform:
    """A new column `name` that is computed from the columns `of`, and is missing where one of them is.

    `log` is a number's logarithm, log(1 + |x|) with the sign of x. `bucket` is a category: how many of the ascending bounds
    `at` a number reaches. `cross` is a category: several columns' values together. `hash` is a category: one of `into`
    classes, by CRC-32.
    """

    __pydantic_config__ = SECTION
    name: str
    kind: Literal["log", "bucket", "cross", "hash"]
    of: tuple[str, ...]
    at: tuple[float, ...] = ()
    into: NonNegativeInt = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", tuple(self.of))  # JSON has lists
        object.__setattr__(self, "at", tuple(self.at))

    @property
    def is_number(self) -> bool:
        """Whether the new column is numeric; the others are categorical."""
        return self.kind == "log"

    @property
    def of_number(self) -> bool:
        """Whether the transform takes one number; the others take categories."""
        return self.kind in ("log", "bucket")

    def __call__(self, values: Sequence[Any]) -> Any:
        """Return the new value for the raw values of the columns `of`.

        Raises ValueError naming the column for a value that should be a number and is none.
        """
        if self.of_number:
            number = as_number(self.of[0], values[0])
            if not math.isfinite(number):
                return None
            return _signed_log(number) if self.is_number else str(bisect_right(self.at, number))
        text = join_texts([as_text(value) for value in values])
        return text if text is None or self.kind == "cross" else str(crc32(text.encode()) % self.into)


def find_errors(transforms: Sequence[Transform], numeric: Sequence[str], categorical: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the section, for a spec with these columns, each by its path."""
    names = {*numeric, *categorical}
    for n, transform in enumerate(transforms):
        kind, columns = transform.kind, numeric if transform.of_number else (*categorical, *numeric)
        if unknown := [column for column in transform.of if column not in columns]:
            yield f"{n}.of: {', '.join(unknown)}: not one of {', '.join(columns)}"
        if kind == "cross" and len(transform.of) < 2:
            yield f"{n}.of: a cross is of two columns or more"
        if kind != "cross" and len(transform.of) != 1:
            yield f"{n}.of: a {kind} is of one column"
        if kind == "bucket" and (not transform.at or list(transform.at) != sorted(set(transform.at))):
            yield f"{n}.at: a bucket needs bounds that ascend"
        if kind == "hash" and transform.into < 1:
            yield f"{n}.into: a hash needs a number of classes"
        if transform.name in names:
            yield f"{n}.name: there is a column {transform.name} already"
        names.add(transform.name)


def _signed_log(number: float) -> float:
    return math.copysign(math.log1p(abs(number)), number)
