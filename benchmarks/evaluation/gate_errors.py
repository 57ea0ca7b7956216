"""The gates on challengers whose true quality is known, beside "promote if the AUC is not lower".

A row's true logit is normal; a model knows it up to a normal error of its own. Two models with errors of one size are truly
equal; the size that makes a challenger worse by exactly the margin is solved for, by quadrature.
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

#: Test rows → how many pairs of models are judged.
SIZES = {2000: 2000, 20_000: 1000, 200_000: 400}
PROMOTED = (Relation.SUPERIOR, Relation.NOT_INFERIOR)
POSITIVES = (0.05, 0.2)
SPREAD, ERROR = 1.0, 0.3
MARGIN, CONFIDENCE, ALPHA = 0.002, 0.95, 0.05
#: Days of a test span on each of which a model's logits are off together by a normal error.
DAYS, DAY_ROWS, DAY_ERROR, DAY_RUNS = 14, 900, 0.2, 1000
GRID = np.linspace(-6, 6, 1201)
DENSITY = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()


def true_logloss(centre: float, error: float) -> float:
    """Mean cross-entropy in nats of a model with that error."""
    truth = centre + SPREAD * GRID[:, None]
    said = truth + error * GRID
    loss = expit(truth) * np.logaddexp(0, -said) + expit(-truth) * np.logaddexp(0, said)
    return float(DENSITY @ loss @ DENSITY)


def true_auc(centre: float, error: float) -> float:
    """The chance that a positive's score is above a negative's, from both scores' densities on the grid's logits."""
    width = np.sqrt(SPREAD**2 + error**2)
    said = centre + width * GRID
    mean, rest = centre + (said - centre) * (SPREAD / width) ** 2, SPREAD * error / width
    chance = (expit(mean[:, None] + rest * GRID) * DENSITY).sum(axis=1)
    positives, negatives = chance * DENSITY, (1 - chance) * DENSITY
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))


def centre_of(positives: float) -> float:
    return float(brentq(lambda c: DENSITY @ expit(c + SPREAD * GRID) - positives, -10, 10))


def error_at_margin(metric: str, centre: float) -> float:
    """The error of a model that is worse by exactly the margin than one with ERROR."""
    if metric == "auc":
        goal = true_auc(centre, ERROR) - MARGIN
        return float(brentq(lambda e: true_auc(centre, e) - goal, ERROR, 2))
    goal = true_logloss(centre, ERROR) + MARGIN
    return float(brentq(lambda e: true_logloss(centre, e) - goal, ERROR, 2))


def evidence(random: np.random.Generator, rows: int, centre: float, error: float) -> Evidence:
    truth = random.normal(centre, SPREAD, rows)
    labels = (random.random(rows) < expit(truth)).astype(float)
    scores = {
        "challenger": expit(truth + random.normal(0, error, rows)),
        "champion": expit(truth + random.normal(0, ERROR, rows)),
    }
    return Evidence(labels, scores)


def compare(seen: Evidence, metric: Literal["logloss", "auc"], seed: int) -> tuple[Relation, float]:
    """What the gates say of the challenger, and by how much it is the worse."""
    gates = Gates(
        baselines=(), max_score_gap=None, min_positives=50, champion=AgainstChampion(metric, MARGIN, CONFIDENCE)
    )
    check = judge(gates, seen, seed).checks[-1]
    if check.interval is None or check.value is None:
        raise ValueError(check.sentence)
    return relate(check.interval, MARGIN), check.value


def errors(rows: int, positives: float, metric: Literal["logloss", "auc"], seed: int) -> dict[str, float]:
    """How often an equal challenger is called worse, and one worse by the margin is promoted, also by the naive rule."""
    random, runs, centre = np.random.default_rng(seed), SIZES[rows], centre_of(positives)
    margin_error, found = error_at_margin(metric, centre), Counter[str]()
    for i in track(range(runs), description=f"gates: {metric}, {rows:,} rows, {positives:.0%} positives"):
        relation, _ = compare(evidence(random, rows, centre, ERROR), metric, seed + i)
        found["equal called worse"] += relation is Relation.WORSE
        found["equal promoted"] += relation in PROMOTED
        seen = evidence(random, rows, centre, margin_error)
        relation, by = compare(seen, metric, seed + i)
        found["worse by the margin promoted"] += relation in PROMOTED
        naive = by if metric == "auc" else compare(seen, "auc", seed)[1]
        found["worse by the margin promoted by the naive rule"] += naive <= 0
    return {name: round(count / runs, 4) for name, count in found.items()}


def dependent_days(seed: int) -> dict[str, float]:
    """How often an equal challenger is called worse when days favour one model or the other, judged by day and by row."""
    random, centre, found = np.random.default_rng(seed), centre_of(0.2), Counter[str]()
    day = np.repeat(np.arange(DAYS), DAY_ROWS)
    for i in track(range(DAY_RUNS), description=f"gates: {DAYS} dependent days"):
        truth = random.normal(centre, SPREAD, len(day))
        labels = (random.random(len(day)) < expit(truth)).astype(float)
        scores = {
            name: expit(truth + random.normal(0, ERROR, len(day)) + random.normal(0, DAY_ERROR, DAYS)[day])
            for name in ("challenger", "champion")
        }
        for how, groups in (("by day", day), ("by row", None)):
            relation, _ = compare(Evidence(labels, scores, groups=groups), "logloss", seed + i)
            found[how] += relation is Relation.WORSE
    return {f"equal called worse, {how}": round(count / DAY_RUNS, 4) for how, count in found.items()}


def bootstrap_cost(seed: int) -> dict[str, float]:
    """1,000 resamples of the difference of two models on 200,000 rows: seconds, and the peak of what it allocates."""
    seen = evidence(np.random.default_rng(seed), 200_000, -2.0, ERROR)

    def run() -> None:
        ours, theirs = (statistics.logloss(seen.labels, seen.scores[name]) for name in ("challenger", "champion"))
        (ours - theirs).bootstrap_t_interval(CONFIDENCE, seed)

    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
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
    """The figures, their bounds, and which hold."""
    metrics: tuple[Literal["logloss", "auc"], ...] = ("logloss", "auc")
    cells = {
        f"{metric}, {rows} rows, {positives:.0%} positives": errors(rows, positives, metric, seed)
        for metric in metrics
        for rows in SIZES
        for positives in POSITIVES
    }
    days, cost = dependent_days(seed), bootstrap_cost(seed)
    bounds = {"equal called worse": ALPHA, "worse by the margin promoted": ALPHA, "seconds": 5.0, "megabytes": 1000.0}
    holds = {
        name: all(found[name] <= ALPHA for found in cells.values())
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
