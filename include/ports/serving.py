"""What scores with an exported model, and the model servers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from include.artifacts.store import Reference
from include.domain.features.online_features import LandedSums


class Scorer(Protocol):
    """Runs an exported model."""

    def score(self, artifact: Reference, columns: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
        """Raw columns of n rows → probabilities `[n]`. Raises Corrupt when a digest differs."""


@dataclass(frozen=True)
class Served:
    """What a model server answered: scores `[n]`, the 99th percentile of a row's time and its memory at the end."""

    scores: NDArray[np.float64]
    p99_ms: float
    memory_mb: float


class Probe(Protocol):
    """Starts the real model server on an artifact, for a moment and for nobody else."""

    def serve(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], past: Sequence[LandedSums] = ()
    ) -> Served:
        """Its answers to these rows, one request a row, from an online store that holds `past`.

        Raises Unavailable with the server's own words.
        """


class Slots(Protocol):
    """The model servers."""

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once the slot is ready with that version. Raises Unavailable with what the slot says instead."""
