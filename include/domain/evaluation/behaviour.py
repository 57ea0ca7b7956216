"""Behaviour: does the score move as a person who knows the field expects when one column is changed?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from include.domain.bounds import SECTION, NonNegativeFloat, Share
from include.domain.verdict import Check, Outcome


@dataclass(frozen=True)
class Behaviour:
    """With `column` set to `value`, or moved by `add`, the score of at most a share `tolerance` of rows may defy
    `expect`.

    `stays` means a change of at most `within`. A directional check has `rises` or `falls`, an invariance check `stays`
    (Ribeiro et al. 2020, "Beyond accuracy: behavioral testing of NLP models with CheckList").
    """

    __pydantic_config__ = SECTION
    column: str
    expect: Literal["rises", "falls", "stays"]
    value: str | float | None = None
    add: float | None = None
    within: NonNegativeFloat = 0.01
    tolerance: Share = 0.05

    @property
    def name(self) -> str:
        change = f"={self.value}" if self.add is None else f"{self.add:+g}"
        return f"{self.column}{change} {self.expect}"

    def change(self, values: Sequence[Any]) -> list[Any]:
        """The column's values as the check wants them; a missing number stays missing."""
        if self.add is None:
            return [self.value] * len(values)
        return [None if v is None else v + self.add for v in values]

    def judge(self, before: ArrayLike, after: ArrayLike | None) -> Check:
        """Compare the scores `[n]` of the rows as they are with those of the changed rows; None fails closed."""
        if after is None:
            return Check(self.name, Outcome.FAIL, f"{self.name}: no scores of the changed rows were given")
        moved = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
        defied = {"rises": moved < 0, "falls": moved > 0, "stays": np.abs(moved) > self.within}[self.expect]
        share = float(np.mean(defied | ~np.isfinite(moved)))
        outcome = Outcome.PASS if share <= self.tolerance else Outcome.FAIL
        sentence = f"{self.name}: {share:.1%} of {len(moved):,} rows defy it, at most {self.tolerance:.1%} may"
        return Check(self.name, outcome, sentence, share, self.tolerance)
