"""Raw numbers as rank-Gaussian scores and missing flags."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from include.trainer.model.scaling import RankGaussianScaler
from tests.unit.trainer.toys import fields_of


def scaled(train: NDArray[np.float32], numbers: list[float]) -> NDArray[np.float32]:
    """Return the score and the flag `[n, 2]` of each number, as the one field of the training data scales it."""
    scale = RankGaussianScaler(fields_of(train), train)
    scores: NDArray[np.float32] = scale(torch.tensor(numbers, dtype=torch.float32)[:, None]).numpy()
    return scores


def test_numbers_become_normal_scores_whatever_their_distribution() -> None:
    train = np.random.default_rng(0).lognormal(3, 2, (20_000, 1)).astype(np.float32)
    quantiles = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    scores = scaled(train, np.quantile(train, quantiles).tolist())[:, 0]
    assert scores == pytest.approx(norm.ppf(quantiles), abs=0.05)


def test_numbers_beyond_all_in_training_are_no_stranger_than_the_strangest_in_fifty() -> None:
    train = np.random.default_rng(0).normal(0, 1, (1000, 1)).astype(np.float32)
    assert scaled(train, [-1e30, 1e30])[:, 0] == pytest.approx([norm.ppf(0.02), norm.ppf(0.98)], abs=1e-4)


def test_numbers_outside_of_a_field_of_few_values_keep_to_its_ends() -> None:
    train = np.stack([np.arange(1000) % values for values in (3, 11)], axis=1).astype(np.float32)
    scale = RankGaussianScaler(fields_of(train), train)
    low, lowest, high, highest = scale(torch.tensor([[0.0, 0.0], [-9.0, -1e30], [2.0, 10.0], [9.0, 1e30]]))
    assert torch.equal(low, lowest)
    assert torch.equal(high, highest)
    assert (low[:2] < high[:2]).all()


def test_a_gpus_search_scores_as_the_cpus_does() -> None:
    train = np.random.default_rng(0).lognormal(3, 2, (1000, 2)).astype(np.float32)
    train[:, 1] = np.arange(1000) % 5
    scale, ends = RankGaussianScaler(fields_of(train), train), torch.tensor([[-1e30, -1e30], [1e30, 1e30]])
    numbers = torch.cat([torch.from_numpy(train), ends])
    gpu, cpu = (scale._scores(numbers, search(numbers)) for search in (scale._find_pieces, scale._find_pieces_on_cpu))
    assert torch.equal(gpu, cpu)


def test_missing_number_is_the_middle_with_its_flag_up() -> None:
    train = np.random.default_rng(0).normal(0, 1, (1000, 1)).astype(np.float32)
    assert scaled(train, [float("nan"), 0.0])[:, 1].tolist() == [1.0, 0.0]
    assert scaled(train, [float("nan")])[0, 0] == 0.0


def test_a_value_held_by_most_rows_sits_in_the_middle_of_their_ranks() -> None:
    train = np.zeros((1000, 1), dtype=np.float32)
    train[:100, 0] = np.linspace(1, 2, 100)
    assert scaled(train, [0.0])[0, 0] == pytest.approx(norm.ppf(0.45), abs=0.01)


@pytest.mark.parametrize("value", [3.0, float("nan")])
def test_a_number_that_never_varies_says_nothing(value: float) -> None:
    train = np.full((10, 1), value, dtype=np.float32)
    assert len(set(scaled(train, [1.0, 3.0, 9.0])[:, 0])) == 1
