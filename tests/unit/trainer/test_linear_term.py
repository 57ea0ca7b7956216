"""The categories' own effects after one pass against the mode of their posterior."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from include.domain.training.families import FamilyName
from include.domain.training.job_settings import NetworkSettings, TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job
from include.trainer.optim.lazy_adamw import LazyAdamW, UniqueRows
from include.trainer.optim.linear_term import LinearTermPrior, append_information
from tests.unit.trainer.toys import CPU, schedule

SPREAD, BATCH_SIZE = 0.5, 64
ALONE = ProcessGroup(0, 1, CPU)
SCHEDULE = schedule(weight_decay=50.0, ema_decay=0.99)


def job(family: FamilyName = "dcn", spread: float = SPREAD, epochs: int = 1) -> Job:
    network = NetworkSettings(4, 2, 0, (8,), 0.0, first_order=spread)
    settings = TrainingSettings(epochs, BATCH_SIZE, 0.01, 50.0, 0.99)
    return Job(Path("data"), "", family, network, settings, 17, "", Path("out"), None)


def trained(ids: NDArray[np.int64], labels: NDArray[np.float32], size: int, epochs: int = 1) -> LazyAdamW:
    """Return rows of two numbers, whose last alone decides the logit, after so many passes over ids `[n, fields]`."""
    rows = LazyAdamW(size, 2, SCHEDULE, 1, CPU, prior=LinearTermPrior.of(job(epochs=epochs), ids.shape[1]))
    batches = np.split(np.arange(len(ids)), range(BATCH_SIZE, len(ids), BATCH_SIZE)) * epochs
    for batch in batches:
        unique = UniqueRows.of(torch.from_numpy(ids[batch]))
        state = rows.read(unique.row_ids)
        logits = state.weight[unique.inverse][..., -1].sum(1)
        gradient = torch.zeros(*unique.inverse.shape, 2)
        gradient[..., -1] = ((torch.sigmoid(logits) - torch.from_numpy(labels[batch])) / len(batch)).unsqueeze(1)
        rows.update(state, unique.sum_by_row(append_information(gradient, ALONE).flatten(0, 1)))
        rows.finish_step()
    rows.apply_pending_updates()
    return rows


def mode(ids: NDArray[np.int64], labels: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Return the mode of the posterior of all effects together, by Newton's method."""
    design = np.zeros((len(ids), size))
    np.add.at(design, (np.arange(len(ids))[:, None], ids), 1)
    effects: NDArray[np.float64] = np.zeros(size)
    for _ in range(20):
        p = 1 / (1 + np.exp(-design @ effects))
        slope = design.T @ (labels - p) - effects / SPREAD**2
        effects += np.linalg.solve((design.T * (p * (1 - p))) @ design + np.eye(size) / SPREAD**2, slope)
    return effects


def stream(rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """Return ids `[rows, 2]`, labels and the number of ids: 40 categories a field, by Zipf's law, the first field's last absent."""
    random = np.random.default_rng(2)
    shares = 1 / np.arange(1, 41)
    ids = np.stack([random.choice(40, rows, p=shares / shares.sum()) for _ in range(2)], axis=1)
    ids[:, 0] = ids[:, 0].clip(max=38)
    ids[:, 1] += 40
    effects = random.normal(0, SPREAD, 80)
    return ids, (random.random(rows) < 1 / (1 + np.exp(-effects[ids].sum(1)))).astype(np.float32), 80


@pytest.mark.parametrize("epochs", [1, 3])
def test_effects_are_their_posteriors_mean_rare_ones_and_frequent_ones(epochs: int) -> None:
    ids, labels, size = stream(6000)
    effects = trained(ids, labels, size, epochs).weight[:, -1].numpy()
    expected = mode(ids, labels, size)
    assert np.abs(effects - expected).max() < 0.1
    assert np.abs(effects - expected).mean() < 0.03
    assert effects[39] == 0


def test_the_mean_of_weights_holds_the_effects_as_they_are() -> None:
    ids, labels, size = stream(1000)
    rows = trained(ids, labels, size)
    assert torch.equal(rows.ema[:, -1], rows.weight[:, -1])
    assert rows.ema[:, -1].abs().max() > 0.1


def test_neither_a_logistic_regression_nor_a_spread_of_nothing_has_effects_beside() -> None:
    assert LinearTermPrior.of(job("logistic"), 2) is None
    assert LinearTermPrior.of(job(spread=0.0), 2) is None
