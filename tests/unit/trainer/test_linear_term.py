"""The categories' own effects after one pass against the mode of their posterior."""

from pathlib import Path

import numpy as np
import pytest
import torch

from include.trainer.distributed.process_group import World
from include.trainer.job import Job, Model, Training
from include.trainer.optim.lazy_adamw import Grouped, Rows
from include.trainer.optim.linear_term import Prior, with_told
from include.trainer.optim.schedule import Schedule

CPU, SPREAD, BATCH = torch.device("cpu"), 0.5, 64
ALONE = World(0, 1, CPU)
PLAN = Schedule(rate=0.01, decay=50.0, ema=0.99, warm_up=0.02, total=1000)


def job(family: str = "dcn", spread: float = SPREAD, epochs: int = 1) -> Job:
    shape = Model(4, 2, 0, (8,), 0.0, first_order=spread)
    plan = Training(epochs, BATCH, 0.01, 50.0, 0.99)
    return Job(Path("data"), "", family, shape, plan, 17, "", Path("out"), None)


def passed(ids: np.ndarray, labels: np.ndarray, size: int, epochs: int = 1) -> Rows:
    """Rows of two numbers, of which the last alone decides the logit, after so many passes over `[n, fields]` ids."""
    rows = Rows(size, 2, PLAN, 1, CPU, prior=Prior.of(job(epochs=epochs), ids.shape[1]))
    batches = np.split(np.arange(len(ids)), range(BATCH, len(ids), BATCH)) * epochs
    for batch in batches:
        grouped = Grouped.of(torch.from_numpy(ids[batch]))
        taken = rows.take(grouped.rows)
        logits = taken.weight[grouped.place][..., -1].sum(1)
        gradient = torch.zeros(*grouped.place.shape, 2)
        gradient[..., -1] = ((torch.sigmoid(logits) - torch.from_numpy(labels[batch])) / len(batch)).unsqueeze(1)
        rows.move(taken, grouped.sums(with_told(gradient, ALONE).flatten(0, 1)))
        rows.pass_step()
    rows.settle()
    return rows


def mode(ids: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Of the posterior of all effects together, by Newton's method."""
    design = np.zeros((len(ids), size))
    np.add.at(design, (np.arange(len(ids))[:, None], ids), 1)
    effects = np.zeros(size)
    for _ in range(20):
        p = 1 / (1 + np.exp(-design @ effects))
        slope = design.T @ (labels - p) - effects / SPREAD**2
        effects += np.linalg.solve((design.T * (p * (1 - p))) @ design + np.eye(size) / SPREAD**2, slope)
    return effects


def stream(rows: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Two fields of 40 categories each, by Zipf's law; the first field's 40th is never seen."""
    random = np.random.default_rng(2)
    shares = 1 / np.arange(1, 41)
    ids = np.stack([random.choice(40, rows, p=shares / shares.sum()) for _ in range(2)], axis=1)
    ids[:, 0] = ids[:, 0].clip(max=38)
    ids[:, 1] += 40
    effects = random.normal(0, SPREAD, 80)
    return ids, (random.random(rows) < 1 / (1 + np.exp(-effects[ids].sum(1)))).astype(np.float32), 80


@pytest.mark.parametrize("epochs", [1, 3])
def test_effects_are_their_posteriors_mean_rare_ones_and_frequent_ones(epochs):
    ids, labels, size = stream(6000)
    found = passed(ids, labels, size, epochs).weight[:, -1].numpy()
    expected = mode(ids, labels, size)
    assert np.abs(found - expected).max() < 0.1
    assert np.abs(found - expected).mean() < 0.03
    assert found[39] == 0


def test_the_mean_of_weights_holds_the_effects_as_they_are():
    ids, labels, size = stream(1000)
    rows = passed(ids, labels, size)
    assert torch.equal(rows.mean[:, -1], rows.weight[:, -1])
    assert rows.mean[:, -1].abs().max() > 0.1


def test_neither_a_logistic_regression_nor_a_spread_of_nothing_has_effects_beside():
    assert Prior.of(job("logistic"), 2) is None
    assert Prior.of(job(spread=0.0), 2) is None
