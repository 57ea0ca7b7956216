"""Ports of serving: what scores rows with an exported model, and the model servers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from include.artifacts.store import Reference
from include.domain.features.online_features import LandedSums


class Scorer(Protocol):
    """Scores rows with an exported model, in this process."""

    def score(self, artifact: Reference, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Return probabilities `[n]` for the raw columns of n rows. Raises Corrupt when a digest differs."""


@dataclass(frozen=True)
class ProbeResult:
    """What a model server answered: scores `[n]`, the 99th percentile of a row's time, and its memory at the end."""

    scores: NDArray[np.float64]
    p99_ms: float
    memory_mb: float


class Probe(Protocol):
    """Starts the real model server on an artifact, for a moment and for nobody else."""

    def score(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], landed_sums: Sequence[LandedSums] = ()
    ) -> ProbeResult:
        """Send these rows, one a request, to a server whose online store holds `landed_sums`.

        Raises Unavailable with the server's own words.
        """


class Slots(Protocol):
    """The model servers, which stand in slots: `stable` serves the champion, `canary` the challenger."""

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once the slot is ready with that version. Raises Unavailable, after `timeout` seconds, with what it says."""
