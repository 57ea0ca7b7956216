"""Ports of live traffic: what splits it, what the model servers log, and what it shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from include.domain.rollout.variants import RequestCounts


@dataclass(frozen=True)
class Routes:
    """How the gateway splits a model's traffic: percent to the canary slot, the rest to stable; `mirror` copies all to canary."""

    canary: int = 0
    mirror: bool = False


class Router(Protocol):
    """Splits a model's live traffic between the slots `stable` and `canary`."""

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once the gateway serves it. Raises Unavailable."""

    def current(self, model: str) -> Routes:
        """Return the split as last applied; all to stable before the first."""


class PredictionLog(Protocol):
    """What the model servers log: lines in segments, each of which one server fills for some minutes.

    There are two kinds, `predictions` and `feedback`.
    """

    def finished(self, model: str, kind: str, now: datetime) -> list[str]:
        """Return the segments to which no server writes any more, oldest first."""

    def read(self, model: str, kind: str, segment: str) -> pa.Table:
        """Return the segment's lines, with `at` (epoch seconds) and the segment's name."""

    def remove(self, model: str, segment: str) -> None:
        """Remove the segment where it is still there."""


class Signals(Protocol):
    """What live traffic shows: counts of requests, predictions, and their labels."""

    def request_counts(self, model: str, slow_ms: float) -> Mapping[str, RequestCounts]:
        """Return, by slot, sums that never fall: requests, errors and answers slower than `slow_ms`.

        They are what a caller of the gateway saw. Raises Unavailable.
        """

    def predictions(self, model: str, since: datetime | None = None) -> pa.Table:
        """Return logged predictions, those made from `since` on.

        Columns: id, at, time, version, slot, mode, key, score, ms, and the raw features as `features` (JSON).
        """

    def feedback(self, model: str) -> pa.Table:
        """Return the labels that callers sent back: `id` of a prediction or its `key`, one of them null, and `label`."""

    def revision(self, model: str) -> str:
        """Return a text that changes whenever a prediction or a label has been logged; cheap."""
