"""A verdict is data: checks with their numbers, and the outcome that follows from them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check or a verdict ends: `inconclusive` is too little evidence, `error` a check that could not be carried out."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


#: Outcomes from the worst to the best. The worst check decides; an error comes first, because it may hide a failure.
SEVERITY = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True)
class Check:
    """One judged metric.

    `value` is what was measured, `bound` what it was compared with, and `interval` the lower and upper end of the value's
    confidence interval; each is None where there is none. `sentence` states the numbers for a person.
    """

    name: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """The checks on one subject."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        """Return the worst outcome of the checks, or inconclusive without any check, because no evidence is never a pass."""
        outcomes = {check.outcome for check in self.checks}
        return next((o for o in SEVERITY if o in outcomes), Outcome.INCONCLUSIVE)

    @property
    def reasons(self) -> list[str]:
        """Return the sentences of the checks that did not pass."""
        return [c.sentence for c in self.checks if c.outcome is not Outcome.PASS]

    def to_dict(self) -> dict[str, object]:
        """Return the verdict as it is stored in JSON: `subject`, `outcome` and `checks`."""
        return {"subject": self.subject, "outcome": self.outcome, "checks": [asdict(c) for c in self.checks]}


def merge(subject: str, verdicts: Sequence[Verdict]) -> Verdict:
    """Return one verdict on the subject with the checks of all."""
    return Verdict(subject, tuple(check for verdict in verdicts for check in verdict.checks))
