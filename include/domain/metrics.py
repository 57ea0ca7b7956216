"""Metrics of predicted probabilities: ranking (AUC), surprise (logloss) and calibration (ECE).

The trainer and the stages share them; with standard errors they are in `statistics`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Probabilities are clipped to this distance from 0 and 1 before a logarithm.
CLIP = 1e-7
ECE_BINS = 15


def midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each of the values `[n]`, counted from 1; tied values share the mean of their ranks.

    `scipy.stats.rankdata` gives the same, but importing `scipy.stats` takes about a second in each process.
    """
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[index], dtype=np.float64)


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve of 0/1 labels `[n]` and scores `[n]`, or NaN where one class is missing.

    It is the Mann-Whitney U statistic divided by the number of pairs of a positive and a negative; a tied pair counts half
    (Hanley & McNeil 1982).
    """
    is_positive = np.asarray(labels) > 0.5
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = midranks(np.asarray(scores, dtype=np.float64))
    u_statistic = ranks[is_positive].sum() - positives * (positives + 1) / 2
    return float(u_statistic / (positives * negatives))


def row_losses(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return the binary cross-entropy in nats of each row, `[n]`, for 0/1 labels `[n]` and probabilities `[n]`."""
    truth = np.asarray(labels, dtype=np.float64)
    probabilities = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return -(truth * np.log(probabilities) + (1 - truth) * np.log1p(-probabilities))


def logloss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean binary cross-entropy in nats, or NaN for no rows."""
    losses = row_losses(labels, scores)
    return float(losses.mean()) if len(losses) else float("nan")


def ece(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error over bins of equal count, or NaN for no rows.

    It is the mean over the bins, weighted by their rows, of |share of positives - mean score| (Nixon et al. 2019, adaptive
    calibration error).
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not len(values):
        return float("nan")
    order = np.argsort(values, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(truth[p].mean() - values[p].mean()) * len(p) for p in parts) / len(values))


def all_metrics(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return AUC, logloss and ECE by name: `auc`, `logloss`, `ece`."""
    return {"auc": auc(labels, scores), "logloss": logloss(labels, scores), "ece": ece(labels, scores)}
