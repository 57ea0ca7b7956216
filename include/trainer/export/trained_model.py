"""What every family's training gives back, so that one function can check, measure and publish it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fitted:
    weights: Sequence[Path]
    graph: Path  #: ONNX
    scores: NDArray[
        np.float64
    ]  #: of the test windows, by the framework that trained; those of the graph must equal them
    seconds: float
    samples_per_second: float
