"""How good probabilities are: ranking (AUC), surprise (logloss), calibration (ECE). Shared by the trainer and stages."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Probabilities are kept this far from 0 and 1 before a logarithm.
CLIP = 1e-7
ECE_BINS = 15


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of 0/1 labels `[n]` and scores `[n]`, ties counting half; NaN where one class is missing.

    The Mann–Whitney U statistic over the number of pairs (Hanley & McNeil 1982).
    """
    truth, values = np.asarray(labels) > 0.5, np.asarray(scores, dtype=np.float64)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def losses(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Each row's binary cross-entropy in nats, `[n]`."""
    truth = np.asarray(labels, dtype=np.float64)
    chance = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return -(truth * np.log(chance) + (1 - truth) * np.log1p(-chance))


def logloss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean binary cross-entropy in nats; NaN for no rows."""
    each = losses(labels, scores)
    return float(each.mean()) if len(each) else float("nan")


def ece(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error over bins of equal count (Nixon et al. 2019, adaptive ECE); NaN for no rows.

    The mean, weighted by rows, of |share of positives - mean score| within each bin.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(values):
        return float("nan")
    order = np.argsort(values, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(truth[p].mean() - values[p].mean()) * len(p) for p in parts) / len(values))


def summary(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """The three of them, by name."""
    return {"auc": auc(labels, scores), "logloss": logloss(labels, scores), "ece": ece(labels, scores)}
