"""The plan of a rollout as the spec gives it: a shadow, steps of live traffic, and the guards that judge both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen, Predicate

from include.domain.bounds import (
    SECTION,
    Confidence,
    Duration,
    PositiveDuration,
    PositiveFloat,
    PositiveInt,
    Share,
    ShareMargin,
)


@dataclass(frozen=True)
class Step:
    """The challenger gets `weight` percent of the traffic for at most `hold`."""

    __pydantic_config__ = SECTION
    weight: Annotated[int, Ge(1), Le(100)]
    hold: Duration = timedelta(0)


def rise_to_all_traffic(steps: Sequence[Step]) -> bool:
    """Return True for steps whose weights rise and end at 100 percent; raises ValueError otherwise."""
    weights = [step.weight for step in steps]
    if any(later <= earlier for earlier, later in pairwise(weights)):
        raise ValueError(f"the weights must rise from step to step, and are {', '.join(map(str, weights))}")
    if weights[-1] != 100:
        raise ValueError(f"the last step must have weight 100, all of the traffic, and has {weights[-1]}")
    return True


@dataclass(frozen=True)
class Guards:
    """How much worse than the champion the challenger may be; a guard without a margin (None) is not judged.

    `error_rate` and `slow_share` (answers slower than `slow_ms`) are shares of requests; with no champion they bound
    the challenger's own share. Choose `slow_ms` near the champion's 99th percentile: slowing far below it is not seen.
    `logloss` is in nats, over requests whose label is known; `label_rate` is how much smaller the share of positive labels
    (a click-through rate) may be. `score_mean` bounds how far the mean score may be from the champion's, `score_shift` how
    far the share of scores above any of nine cut points from 0.003 to 0.9 may be, and `calibration` how far the mean of
    score less label may be from 0, all both ways.

    The rest is judged when the shadow ends, on the mirrored requests that both scored: `flipped` is the share that the
    challenger may decide otherwise than the champion, `score_difference` the mean distance of their scores,
    `rank_correlation` the least that Spearman's may be.
    """

    __pydantic_config__ = SECTION
    error_rate: ShareMargin | None = 0.01
    slow_share: ShareMargin | None = 0.05
    slow_ms: PositiveFloat = 100.0
    logloss: PositiveFloat | None = None
    label_rate: ShareMargin | None = None
    score_mean: ShareMargin | None = None
    score_shift: ShareMargin | None = None
    calibration: ShareMargin | None = None
    flipped: Share | None = None
    score_difference: Share | None = None
    rank_correlation: Annotated[float, Ge(-1), Le(1)] | None = None
    confidence: Confidence = 0.95

    @property
    def need_scores(self) -> bool:
        """Whether any guard judges the scores or the labels of single requests, which the gateway does not count."""
        margins = (self.logloss, self.label_rate, self.score_mean, self.score_shift, self.calibration)
        return any(margin is not None for margin in margins)


@dataclass(frozen=True)
class Rollout:
    """The `rollout` section of a spec: traffic is mirrored for `shadow`, then come `steps` of live traffic.

    Each is judged by `guards`. Requests of the first `warm_up` of a step are not counted. `min_requests` are the canary's,
    before it may pass. A score of at least `threshold` is a yes. A challenger approved while another is rolled out waits
    for its end or, as `newer` says, supersedes it.
    """

    __pydantic_config__ = SECTION
    shadow: Duration = timedelta(minutes=10)
    steps: Annotated[tuple[Step, ...], MinLen(1), Predicate(rise_to_all_traffic)] = (
        Step(10, timedelta(minutes=30)),
        Step(100),
    )
    guards: Guards = field(default_factory=Guards)
    warm_up: Duration = timedelta(seconds=10)
    min_requests: PositiveInt = 500
    max_duration: PositiveDuration = timedelta(hours=6)
    on_inconclusive: Literal["hold", "rollback"] = "rollback"
    newer: Literal["wait", "supersede"] = "wait"
    threshold: Confidence = 0.5
