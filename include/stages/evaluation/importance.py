"""How much a model leans on each column, so that the watch gives no alarm over one that the model hardly uses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.artifacts.store import Reference
from include.ports.serving import Scorer

#: Rows that are scored once for each column.
ROWS = 1000


def shares(
    scorer: Scorer, artifact: Reference, columns: Mapping[str, Sequence[Any]], features: Sequence[str], seed: int
) -> dict[str, float]:
    """Return each feature's share in what moves the scores; the shares sum to 1, and are empty where nothing moves them.

    Permutation importance (Breiman 2001) of the scores themselves, without labels: how far they move when the feature's
    values are shuffled among a sample of the rows. `columns` are raw, `[n]` each.
    """
    random = np.random.default_rng(seed)
    count = len(next(iter(columns.values())))
    sample_rows = random.permutation(count)[:ROWS]
    sample = {name: _select(values, sample_rows) for name, values in columns.items()}
    scores = scorer.score(artifact, sample)
    movements = {}
    for feature in features:
        shuffled = _select(sample[feature], random.permutation(len(sample_rows)))
        movements[feature] = float(np.abs(scorer.score(artifact, {**sample, feature: shuffled}) - scores).sum())
    total = sum(movements.values())
    return {name: value / total for name, value in movements.items()} if total else {}


def _select(values: Sequence[Any], rows: NDArray[np.intp]) -> Sequence[Any]:
    return values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
