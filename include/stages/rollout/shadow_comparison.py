"""How alike challenger and champion scored the very same mirrored requests."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.domain.metrics import midranks
from include.domain.rollout.plan import Guards
from include.domain.verdict import Check, Outcome

#: Scores at or above it are a "yes".
THRESHOLD = 0.5


@dataclass(frozen=True)
class Agreement:
    """How alike two models scored `requests` requests; `rank_correlation` is Spearman's, None where one side never varied.

    The differences are the challenger's score less the champion's; `flipped` is the share decided otherwise.
    """

    requests: int
    mean_difference: float
    mean_absolute_difference: float
    rank_correlation: float | None
    flipped: float

    @property
    def sentence(self) -> str:
        """The numbers as a sentence."""
        ranks = "" if self.rank_correlation is None else f", rank correlation {self.rank_correlation:.3f}"
        return (
            f"of {self.requests:,} mirrored requests {self.flipped:.1%} would be decided otherwise; the challenger's "
            f"scores differ by {self.mean_difference:+.4f} on average, {self.mean_absolute_difference:.4f} either way{ranks}"
        )


def measure(predictions: pa.Table, threshold: float = THRESHOLD) -> Agreement | None:
    """Compare logged predictions (`id`, `slot`, `score`), paired by id; None where no request was scored by both."""
    ids, slots, scores = (predictions[name].to_pylist() for name in ("id", "slot", "score"))
    by_slot: dict[str, dict[str, float]] = {"stable": {}, "canary": {}}
    for request_id, slot, score in zip(ids, slots, scores, strict=True):
        by_slot.setdefault(slot, {})[request_id] = score
    both = sorted(by_slot["stable"].keys() & by_slot["canary"].keys())
    if not both:
        return None
    champion, challenger = (np.array([by_slot[slot][key] for key in both]) for slot in ("stable", "canary"))
    difference = challenger - champion
    flipped = (challenger >= threshold) != (champion >= threshold)
    return Agreement(
        requests=len(both),
        mean_difference=float(difference.mean()),
        mean_absolute_difference=float(np.abs(difference).mean()),
        rank_correlation=_spearman(champion, challenger),
        flipped=float(flipped.mean()),
    )


def judge(guards: Guards, agreement: Agreement | None) -> tuple[Check, ...]:
    """Return one check for each guard that is set; one on what could not be measured fails."""
    flipped = difference = correlation = None
    if agreement:
        flipped, difference = agreement.flipped, agreement.mean_absolute_difference
        correlation = agreement.rank_correlation
    checks = []
    if guards.flipped is not None:
        checks.append(_at_most("flipped", flipped, guards.flipped))
    if guards.score_difference is not None:
        checks.append(_at_most("score_difference", difference, guards.score_difference))
    if guards.rank_correlation is not None:
        checks.append(_at_least("rank_correlation", correlation, guards.rank_correlation))
    return tuple(checks)


def _at_most(name: str, value: float | None, bound: float) -> Check:
    return _check(name, value, bound, f"at most {bound:g}", value is not None and value <= bound)


def _at_least(name: str, value: float | None, bound: float) -> Check:
    return _check(name, value, bound, f"at least {bound:g}", value is not None and value >= bound)


def _check(name: str, value: float | None, bound: float, required: str, holds: bool) -> Check:
    if value is None:
        sentence = f"{name} could not be measured on the mirrored requests; it must be {required}"
    else:
        sentence = f"{name} is {value:.4g} over the mirrored requests; it must be {required}"
    return Check(name, Outcome.PASS if holds else Outcome.FAIL, sentence, value, bound)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return the rank correlation of two scores of the same requests, None where one of them never varies."""
    x, y = (ranks - ranks.mean() for ranks in (midranks(a), midranks(b)))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else None
