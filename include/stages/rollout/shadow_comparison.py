"""Agreement: how alike challenger and champion scored the very same mirrored requests."""

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
    """Over `requests` that both scored; `rank_correlation` is Spearman's, None where one side never varied."""

    requests: int
    mean_difference: float
    mean_absolute_difference: float
    rank_correlation: float | None
    flipped: float

    @property
    def sentence(self) -> str:
        ranks = "" if self.rank_correlation is None else f", rank correlation {self.rank_correlation:.3f}"
        return (
            f"of {self.requests:,} mirrored requests {self.flipped:.1%} would be decided otherwise; the challenger's "
            f"scores differ by {self.mean_difference:+.4f} on average, {self.mean_absolute_difference:.4f} either way{ranks}"
        )


def measure(predictions: pa.Table, threshold: float = THRESHOLD) -> Agreement | None:
    """From logged predictions (`id`, `slot`, `score`), paired by id; None where no request was scored by both."""
    ids, slots, scores = (predictions[name].to_pylist() for name in ("id", "slot", "score"))
    by_slot: dict[str, dict[str, float]] = {"stable": {}, "canary": {}}
    for key, slot, score in zip(ids, slots, scores, strict=True):
        by_slot.setdefault(slot, {})[key] = score
    both = sorted(by_slot["stable"].keys() & by_slot["canary"].keys())
    if not both:
        return None
    champion, challenger = (np.array([by_slot[slot][key] for key in both]) for slot in ("stable", "canary"))
    difference = challenger - champion
    flipped = (challenger >= threshold) != (champion >= threshold)
    return Agreement(
        len(both), float(difference.mean()), float(np.abs(difference).mean()), _spearman(champion, challenger),
        float(flipped.mean()),
    )  # fmt: skip


def judge(guards: Guards, found: Agreement | None) -> tuple[Check, ...]:
    """One check per guard that is set; one on what could not be measured fails."""
    measured: dict[str, float | None] = {}
    if found:
        measured = {
            "flipped": found.flipped,
            "score_difference": found.mean_absolute_difference,
            "rank_correlation": found.rank_correlation,
        }
    bounds = (
        ("flipped", guards.flipped, "most"),
        ("score_difference", guards.score_difference, "most"),
        ("rank_correlation", guards.rank_correlation, "least"),
    )
    return tuple(_check(name, bound, end, measured.get(name)) for name, bound, end in bounds if bound is not None)


def _check(name: str, bound: float, end: str, value: float | None) -> Check:
    if value is None:
        said = f"{name} could not be measured on the mirrored requests; it must be at {end} {bound:g}"
        return Check(name, Outcome.FAIL, said, None, bound)
    within = value <= bound if end == "most" else value >= bound
    said = f"{name} is {value:.4g} over the mirrored requests; it must be at {end} {bound:g}"
    return Check(name, Outcome.PASS if within else Outcome.FAIL, said, value, bound)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return the rank correlation of two scores of the same requests, None where one of them never varies."""
    x, y = (ranks - ranks.mean() for ranks in (midranks(a), midranks(b)))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else None
