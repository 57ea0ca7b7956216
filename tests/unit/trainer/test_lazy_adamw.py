"""The table's optimizer against the dense algorithm on every row in every step."""

import pytest
import torch

from include.trainer.optim.lazy_adamw import LazyAdamW, UniqueRows
from include.trainer.optim.schedule import BETAS, EPS, StepSchedule
from tests.unit.trainer.toys import CPU, schedule

torch.set_num_threads(1)


@pytest.mark.parametrize("count", [9, 60_000, 5_000_000])
def test_rows_of_a_batch_are_listed_once_and_their_values_summed_whatever_the_tables_size(count: int) -> None:
    generator = torch.Generator().manual_seed(4)
    row_ids = torch.randint(0, count, (500, 3), generator=generator)
    row_ids[::2] = row_ids[:1]
    values = torch.randn(1500, 2, generator=generator)
    unique = UniqueRows.of(row_ids)
    assert torch.equal(unique.row_ids, torch.tensor(sorted(set(row_ids.flatten().tolist()))))
    assert torch.equal(unique.row_ids[unique.inverse], row_ids)
    dense = torch.zeros(len(unique.row_ids), 2).index_add_(0, unique.inverse.flatten(), values)
    assert torch.allclose(unique.sum_by_row(values), dense, atol=1e-4)


class DenseTable:
    """The table's algorithm on every row in every step."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight, self.ema = weight.clone(), weight.clone()
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(weight), torch.zeros(len(weight), 1)

    def step(self, gradient: torch.Tensor, schedule: StepSchedule, step: int) -> None:
        coefficients = schedule.coefficients(step)
        self.exp_avg.lerp_(gradient, 1 - BETAS[0])
        self.exp_avg_sq.mul_(BETAS[1]).add_(gradient.square().mean(1, keepdim=True), alpha=1 - BETAS[1])
        self.weight.mul_(coefficients.decay_factor)
        denominator = self.exp_avg_sq.sqrt().div(coefficients.bias_correction).add(EPS)
        self.weight.addcdiv_(self.exp_avg, denominator, value=-coefficients.step_size)
        self.ema.lerp_(self.weight, 1 - coefficients.ema_decay)


@pytest.mark.parametrize("decay", [0.0, 5.0, 100.0])
def test_rows_that_no_batch_held_are_where_dense_steps_would_have_left_them(decay: float) -> None:
    torch.manual_seed(0)
    steps = schedule(weight_decay=decay, ema_decay=0.99, total_steps=150)
    rows = LazyAdamW(40, 4, steps, 1, CPU)
    dense = DenseTable(rows.weight)
    for step in range(150):
        if step == 70:
            rows.apply_pending_updates()
        row_ids = torch.randint(0, 40 if step % 3 else 5, (6,))
        values = torch.randn(6, 4)
        unique = UniqueRows.of(row_ids)
        state = rows.read(unique.row_ids)
        assert torch.allclose(state.weight, dense.weight[unique.row_ids], rtol=1e-3, atol=1e-5)
        rows.update(state, unique.sum_by_row(values))
        rows.finish_step()
        dense.step(torch.zeros(40, 4).index_add_(0, row_ids, values), steps, step)
    state = rows.read(torch.arange(40))
    assert torch.allclose(state.weight, dense.weight, rtol=1e-3, atol=1e-5)
    assert torch.allclose(state.ema, dense.ema, rtol=1e-3, atol=1e-5)
    rows.apply_pending_updates()
    assert torch.allclose(rows.ema, dense.ema, rtol=1e-3, atol=1e-5)
    assert torch.allclose(rows.exp_avg_sq, dense.exp_avg_sq, rtol=1e-3, atol=1e-9)


def test_shares_of_the_table_begin_as_the_whole_does() -> None:
    whole = LazyAdamW(200_000, 2, schedule(), 7, CPU)
    for rank in range(3):
        share = LazyAdamW(200_000, 2, schedule(), 7, CPU, rank, 3)
        assert torch.equal(share.weight, whole.weight[rank::3])
