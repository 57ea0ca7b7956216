"""Measure how often the gates err on simulated challengers, beside the naive rule "promote if the AUC is not lower".

A row's true logit is normal, and a model's logit is the true one plus a normal error. Two models whose errors have the same
standard deviation are truly equal; the one that makes a challenger worse by exactly the margin is solved for by quadrature.
"""

import time
import tracemalloc
from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.optimize import brentq
from scipy.special import expit

from include.domain import statistics
from include.domain.evaluation.gate_settings import AgainstChampion, Gates
from include.domain.evaluation.gates import Evidence, Relation, judge, relate

Floats = NDArray[np.float64]

#: The number of pairs of models that are judged, by the number of test rows.
SIZES = {2000: 2000, 20_000: 1000, 200_000: 400}
PROMOTED = (Relation.SUPERIOR, Relation.NOT_INFERIOR)
#: Shares of positive labels.
POSITIVES = (0.05, 0.2)
#: Standard deviations of the true logits and of the champion's error.
SPREAD, ERROR = 1.0, 0.3
MARGIN, CONFIDENCE, ALPHA = 0.002, 0.95, 0.05
#: A test span of days, on each of which all logits of a model are off by one common normal error.
DAYS, DAY_ROWS, DAY_ERROR, DAY_RUNS = 14, 900, 0.2, 1000
#: A standard normal variable for quadrature: its values and their probabilities.
GRID = np.linspace(-6, 6, 1201)
DENSITY = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


def true_logloss(mean_logit: float, error: float) -> float:
    """Return the expected cross-entropy in nats of a model whose logits have that standard deviation of error."""
    true_logits = mean_logit + SPREAD * GRID[:, None]
    logits = true_logits + error * GRID
    loss = expit(true_logits) * np.logaddexp(0, -logits) + expit(-true_logits) * np.logaddexp(0, logits)
    return float(DENSITY @ loss @ DENSITY)


def true_auc(mean_logit: float, error: float) -> float:
    """Return the probability that a positive's score is above a negative's, from their densities over the grid of logits."""
    width = np.sqrt(SPREAD**2 + error**2)
    logits = mean_logit + width * GRID
    mean, rest = mean_logit + (logits - mean_logit) * (SPREAD / width) ** 2, SPREAD * error / width
    chance = (expit(mean[:, None] + rest * GRID) * DENSITY).sum(axis=1)
    positives, negatives = chance * DENSITY, (1 - chance) * DENSITY
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))


def mean_logit_of(positives: float) -> float:
    """Return the mean of the true logits with which that share of the labels is positive."""
    return float(brentq(lambda c: DENSITY @ expit(c + SPREAD * GRID) - positives, -10, 10))


def error_at_margin(metric: str, mean_logit: float) -> float:
    """Return the standard deviation of error of a model that is worse by exactly the margin than a model with `ERROR`."""
    if metric == "auc":
        goal = true_auc(mean_logit, ERROR) - MARGIN
        return float(brentq(lambda e: true_auc(mean_logit, e) - goal, ERROR, 2))
    goal = true_logloss(mean_logit, ERROR) + MARGIN
    return float(brentq(lambda e: true_logloss(mean_logit, e) - goal, ERROR, 2))


def draw_evidence(random: np.random.Generator, rows: int, mean_logit: float, error: float) -> Evidence:
    """Draw the labels and both models' scores of a test set; `error` is the challenger's standard deviation of error."""
    true_logits = random.normal(mean_logit, SPREAD, rows)
    labels = (random.random(rows) < expit(true_logits)).astype(float)
    scores = {
        "challenger": expit(true_logits + random.normal(0, error, rows)),
        "champion": expit(true_logits + random.normal(0, ERROR, rows)),
    }
    return Evidence(labels, scores)


def compare(evidence: Evidence, metric: Literal["logloss", "auc"], seed: int) -> tuple[Relation, float]:
    """Return how the gates relate the challenger to the champion, and the estimate of how much worse the challenger is."""
    gates = Gates(
        baselines=(), max_score_gap=None, min_positives=50, champion=AgainstChampion(metric, MARGIN, CONFIDENCE)
    )
    check = judge(gates, evidence, seed).checks[-1]
    if check.interval is None or check.value is None:
        raise ValueError(check.sentence)
    return relate(check.interval, MARGIN), check.value


def error_rates(rows: int, positives: float, metric: Literal["logloss", "auc"], seed: int) -> dict[str, float]:
    """Return how often an equal challenger is called worse, and how often one worse by the margin is promoted."""
    random, runs, mean_logit = np.random.default_rng(seed), SIZES[rows], mean_logit_of(positives)
    margin_error, counts = error_at_margin(metric, mean_logit), Counter[str]()
    for i in track(range(runs), description=f"gates: {metric}, {rows:,} rows, {positives:.0%} positives"):
        relation, _ = compare(draw_evidence(random, rows, mean_logit, ERROR), metric, seed + i)
        counts["equal called worse"] += relation is Relation.WORSE
        counts["equal promoted"] += relation in PROMOTED
        evidence = draw_evidence(random, rows, mean_logit, margin_error)
        relation, difference = compare(evidence, metric, seed + i)
        counts["worse by the margin promoted"] += relation in PROMOTED
        auc_difference = difference if metric == "auc" else compare(evidence, "auc", seed)[1]
        counts["worse by the margin promoted by the naive rule"] += auc_difference <= 0
    return {name: round(count / runs, 4) for name, count in counts.items()}


def dependent_days(seed: int) -> dict[str, float]:
    """Return how often an equal challenger is called worse when days favour one model or the other, judged by day and by row."""
    random, mean_logit, counts = np.random.default_rng(seed), mean_logit_of(0.2), Counter[str]()
    day = np.repeat(np.arange(DAYS), DAY_ROWS)
    for i in track(range(DAY_RUNS), description=f"gates: {DAYS} dependent days"):
        true_logits = random.normal(mean_logit, SPREAD, len(day))
        labels = (random.random(len(day)) < expit(true_logits)).astype(float)
        scores = {
            name: expit(true_logits + random.normal(0, ERROR, len(day)) + random.normal(0, DAY_ERROR, DAYS)[day])
            for name in ("challenger", "champion")
        }
        for judged, groups in (("by day", day), ("by row", None)):
            relation, _ = compare(Evidence(labels, scores, groups=groups), "logloss", seed + i)
            counts[judged] += relation is Relation.WORSE
    return {f"equal called worse, {judged}": round(count / DAY_RUNS, 4) for judged, count in counts.items()}


def bootstrap_cost(seed: int) -> dict[str, float]:
    """Return the seconds and the peak megabytes of 1,000 resamples of two models' difference on 200,000 rows."""
    evidence = draw_evidence(np.random.default_rng(seed), 200_000, -2.0, ERROR)

    def run() -> None:
        challenger, champion = (
            statistics.logloss(evidence.labels, evidence.scores[name]) for name in ("challenger", "champion")
        )
        (challenger - champion).bootstrap_t_interval(CONFIDENCE, seed)

    started_at = time.perf_counter()
    run()
    seconds = time.perf_counter() - started_at
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "seconds": round(seconds, 3),
        "megabytes": round(peak / 1e6, 1),
        "resamples": statistics.BOOTSTRAP_T_RESAMPLES,
    }


def section(seed: int = 7) -> dict[str, Any]:
    """Return the figures, their bounds, and which of them hold."""
    metrics: tuple[Literal["logloss", "auc"], ...] = ("logloss", "auc")
    cells = {
        f"{metric}, {rows} rows, {positives:.0%} positives": error_rates(rows, positives, metric, seed)
        for metric in metrics
        for rows in SIZES
        for positives in POSITIVES
    }
    days, cost = dependent_days(seed), bootstrap_cost(seed)
    bounds = {"equal called worse": ALPHA, "worse by the margin promoted": ALPHA, "seconds": 5.0, "megabytes": 1000.0}
    holds = {
        name: all(rates[name] <= ALPHA for rates in cells.values())
        for name in ("equal called worse", "worse by the margin promoted")
    }
    holds["equal called worse on dependent days"] = days["equal called worse, by day"] <= ALPHA
    holds |= {name: cost[name] < bounds[name] for name in ("seconds", "megabytes")}
    runs = {str(rows): count for rows, count in SIZES.items()}
    return {
        "runs": runs,
        "figures": {"cells": cells, "dependent days": days, "bootstrap": cost},
        "bounds": bounds,
        "holds": holds,
    }
