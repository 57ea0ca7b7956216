"""`verdict.json`: what the gates decided on an evaluation, with every number behind it."""

from collections.abc import Mapping
from dataclasses import dataclass

from include.artifacts.store import Reference
from include.domain.evaluation.slices import SliceEffect
from include.domain.verdict import Check, Outcome, Verdict


@dataclass(frozen=True, kw_only=True)
class VerdictRecord:
    """The gates' verdict. `released` is what it means: under `dry_run` the verdict is reported and holds nothing back.

    `measured` has what was measured beside the scores, by name. `slices` are the effects that the gates compared with
    `slice_margin`, the most suspect first; there are none without a champion.
    """

    subject: str
    outcome: Outcome
    checks: tuple[Check, ...]
    dry_run: bool
    released: bool
    measured: Mapping[str, float]
    slices: tuple[SliceEffect, ...]
    slice_margin: float
    evaluation: Reference

    @property
    def verdict(self) -> Verdict:
        """The verdict alone, whose outcome follows from the checks."""
        return Verdict(self.subject, self.checks)
