"""How much a model leans on each column, so that the watch need not cry over one that it hardly uses."""

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
    """By feature its share, which sum to 1: how far scores move when its values are dealt out anew among the rows.

    Permutation importance (Breiman 2001) of the scores themselves, without labels. `columns` `[n]` are raw; empty where
    no feature moves them.
    """
    random = np.random.default_rng(seed)
    count = len(next(iter(columns.values())))
    chosen = random.permutation(count)[:ROWS]
    sample = {name: _taken(values, chosen) for name, values in columns.items()}
    usual = scorer.score(artifact, sample)
    moved = {}
    for feature in features:
        dealt = _taken(sample[feature], random.permutation(len(chosen)))
        moved[feature] = float(np.abs(scorer.score(artifact, {**sample, feature: dealt}) - usual).sum())
    total = sum(moved.values())
    return {name: value / total for name, value in moved.items()} if total else {}


def _taken(values: Sequence[Any], rows: NDArray[np.intp]) -> Sequence[Any]:
    return values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
