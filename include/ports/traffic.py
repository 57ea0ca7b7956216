"""What splits live traffic, and what it shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Routes:
    """How the gateway splits a model's traffic: percent to the canary slot, the rest to stable; `mirror` copies all to canary."""

    canary: int = 0
    mirror: bool = False


@dataclass(frozen=True)
class ArmCounts:
    """One slot's live traffic over a span, as the caller of the gateway saw it."""

    requests: int
    errors: int
    slow: int


class Router(Protocol):
    """Splits a model's live traffic between the slots `stable` and `canary`."""

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once the gateway serves it. Raises Unavailable."""

    def current(self, model: str) -> Routes: ...


class PredictionLog(Protocol):
    """What the model servers write: lines in segments, each of which one server fills for some minutes.

    There are two kinds, `predictions` and `feedback`.
    """

    def finished(self, model: str, kind: str, now: datetime) -> list[str]:
        """Segments to which nobody writes any more, oldest first."""

    def read(self, model: str, kind: str, segment: str) -> pa.Table:
        """The segment's lines, with `at` (epoch seconds) and the segment's name."""

    def remove(self, model: str, segment: str) -> None: ...


class Signals(Protocol):
    """What production shows."""

    def counts(self, model: str, slow_ms: float) -> Mapping[str, ArmCounts]:
        """Per slot, sums that never fall: requests, errors and answers slower than `slow_ms`."""

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Logged predictions: id, at, time, version, slot, mode, key, score, ms, and the raw features as `features` (JSON)."""

    def feedback(self, model: str) -> pa.Table:
        """Labels that callers sent back: `id` of a prediction or its `key`, one of them null, and `label`."""

    def stamp(self, model: str) -> str:
        """Another text whenever a prediction or a label has been logged; cheap."""
