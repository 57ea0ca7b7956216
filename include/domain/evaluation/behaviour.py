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
        """The check's name, which states the change and what is expected of it."""
        change = f"={self.value}" if self.add is None else f"{self.add:+g}"
        return f"{self.column}{change} {self.expect}"

    def change(self, values: Sequence[Any]) -> list[Any]:
        """Return the column's values as the check changes them; a missing number stays missing."""
        if self.add is None:
            return [self.value] * len(values)
        return [None if v is None else v + self.add for v in values]

    def judge(self, scores: ArrayLike, changed_scores: ArrayLike | None) -> Check:
        """Compare the scores `[n]` of the rows with those of the changed rows; the check fails where there are none."""
        if changed_scores is None:
            return Check(self.name, Outcome.FAIL, f"{self.name}: no scores of the changed rows were given")
        differences = np.asarray(changed_scores, dtype=np.float64) - np.asarray(scores, dtype=np.float64)
        defies = {"rises": differences < 0, "falls": differences > 0, "stays": np.abs(differences) > self.within}
        share = float(np.mean(defies[self.expect] | ~np.isfinite(differences)))
        outcome = Outcome.PASS if share <= self.tolerance else Outcome.FAIL
        sentence = f"{self.name}: {share:.1%} of {len(differences):,} rows defy it, at most {self.tolerance:.1%} may"
        return Check(self.name, outcome, sentence, share, self.tolerance)
