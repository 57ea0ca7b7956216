"""A verdict is data: checks with their numbers, and the outcome that follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


#: The worst check decides; an error hides nothing else, so it comes first.
SEVERITY = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True)
class Check:
    """One judged metric. `sentence` carries the numbers for a person; `interval` is (low, high)."""

    name: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """The checks on one subject. No checks means no evidence, and that is never a pass."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {check.outcome for check in self.checks}
        return next((o for o in SEVERITY if o in outcomes), Outcome.INCONCLUSIVE)

    @property
    def reasons(self) -> list[str]:
        """The sentences of the checks that did not pass."""
        return [c.sentence for c in self.checks if c.outcome is not Outcome.PASS]

    def to_dict(self) -> dict[str, Any]:
        return {"subject": self.subject, "outcome": self.outcome, "checks": [asdict(c) for c in self.checks]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Verdict":
        return cls(data["subject"], tuple(_check(c) for c in data["checks"]))


def merge(subject: str, verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict with the checks of all."""
    return Verdict(subject, tuple(check for verdict in verdicts for check in verdict.checks))


def _check(data: Mapping[str, Any]) -> Check:
    interval = data.get("interval")
    low_high = None if interval is None else (float(interval[0]), float(interval[1]))
    return Check(**{**data, "outcome": Outcome(data["outcome"]), "interval": low_high})
