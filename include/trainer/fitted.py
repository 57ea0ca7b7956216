"""What every family's training gives back, so that one function can check, measure and publish it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Score = Callable[[NDArray[np.int32], NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Fitted:
    weights: Mapping[str, bytes]  #: content by file name
    onnx: bytes
    score: Score  #: ids, numbers → probabilities `[n]` by the framework that trained, which the ONNX graph must equal
    seconds: float
    samples_per_second: float
