"""What the training of every family returns, so that one function can check, measure and publish it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainedModel:
    """The files of a model, in a folder of drafts, and how its training went."""

    weights: Sequence[Path]
    graph: Path  #: ONNX
    #: `[n]` of the test windows, by the framework that trained; those of the graph must equal them.
    test_scores: NDArray[np.float64]
    seconds: float
    samples_per_second: float
