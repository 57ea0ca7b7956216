"""The canary's judge: is the challenger, at this moment and on live traffic, not worse than the champion?"""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Step:
    """The challenger gets `weight` percent of the traffic for at most `hold`."""

    __pydantic_config__ = {"extra": "forbid"}
    weight: int
    hold: timedelta = timedelta(0)


@dataclass(frozen=True)
class Guards:
    """Non-inferiority margins, absolute: shares of requests for errors and slow answers, units of the metric otherwise."""

    __pydantic_config__ = {"extra": "forbid"}
    error_rate: float | None = 0.01
    slow_share: float | None = 0.05
    slow_ms: float = 100.0
    confidence: float = 0.95


@dataclass(frozen=True)
class Rollout:
    """The `rollout` section of a spec: mirrored for `shadow`, then `steps` of live traffic, each judged by `guards`."""

    __pydantic_config__ = {"extra": "forbid"}
    shadow: timedelta = timedelta(minutes=10)
    steps: tuple[Step, ...] = (Step(10, timedelta(minutes=30)), Step(100))
    guards: Guards = field(default_factory=Guards)
    min_requests: int = 500
    max_duration: timedelta = timedelta(hours=6)
    on_inconclusive: str = "rollback"
