"""The optimizers against torch's AdamW and the dense algorithm, the schedule, and the mean of the weights."""

import pytest
import torch
from torch import nn

from include.domain.training.settings import TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.row_threads import RowThreads
from include.trainer.optim.adamw import DenseAdamW
from include.trainer.optim.embedding_table import MIN_ROWS_PER_THREAD, LocalRows
from include.trainer.optim.lazy_adamw import LazyAdamW, UniqueRows
from include.trainer.optim.schedule import BETAS, EPS, StepSchedule

CPU = torch.device("cpu")
torch.set_num_threads(1)


def schedule(**changes: float) -> StepSchedule:
    return StepSchedule(
        **{"lr": 0.01, "weight_decay": 2.0, "ema_decay": 0.9, "warm_up": 0.02, "total_steps": 1000, **changes}
    )


def test_the_tower_moves_as_adamw_without_decay():
    torch.manual_seed(3)
    ours, theirs = (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer, plan = DenseAdamW(ours), schedule(total_steps=20)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(20):
        x = torch.randn(8, 4)
        for net in (ours, theirs):
            (net(x).squeeze(1) - x.sum(1)).square().mean().backward()
        for group in reference.param_groups:
            group["lr"] = plan.lr_at(step)
        reference.step()
        reference.zero_grad()
        optimizer.step(plan.coefficients(step))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("count", [9, 60_000, 5_000_000])
def test_rows_of_a_batch_are_named_once_and_their_values_summed_whatever_the_tables_size(count):
    source = torch.Generator().manual_seed(4)
    numbers = torch.randint(0, count, (500, 3), generator=source)
    numbers[::2] = numbers[:1]
    values = torch.randn(1500, 2, generator=source)
    grouped = UniqueRows.of(numbers)
    assert torch.equal(grouped.row_ids, numbers.unique())
    assert torch.equal(grouped.row_ids[grouped.inverse], numbers)
    dense = torch.zeros(len(grouped.row_ids), 2).index_add_(0, grouped.inverse.flatten(), values)
    assert torch.allclose(grouped.sum_by_row(values), dense, atol=1e-4)


class Dense:
    """The table's algorithm on every row in every step."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight, self.ema = weight.clone(), weight.clone()
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(weight), torch.zeros(len(weight), 1)

    def step(self, gradient: torch.Tensor, plan: StepSchedule, step: int) -> None:
        coefficients = plan.coefficients(step)
        self.exp_avg.lerp_(gradient, 1 - BETAS[0])
        self.exp_avg_sq.mul_(BETAS[1]).add_(gradient.square().mean(1, keepdim=True), alpha=1 - BETAS[1])
        self.weight.mul_(coefficients.decay_factor)
        denominator = self.exp_avg_sq.sqrt().div(coefficients.bias_correction).add(EPS)
        self.weight.addcdiv_(self.exp_avg, denominator, value=-coefficients.step_size)
        self.ema.lerp_(self.weight, 1 - coefficients.ema_decay)


@pytest.mark.parametrize("decay", [0.0, 5.0, 100.0])
def test_rows_that_no_batch_held_are_where_dense_steps_would_have_left_them(decay):
    torch.manual_seed(0)
    plan = schedule(weight_decay=decay, ema_decay=0.99, total_steps=150)
    rows = LazyAdamW(40, 4, plan, 1, CPU)
    dense = Dense(rows.weight)
    for step in range(150):
        if step == 70:
            rows.apply_pending_updates()
        held = torch.randint(0, 40 if step % 3 else 5, (6,))
        values = torch.randn(6, 4)
        group = UniqueRows.of(held)
        state = rows.read(group.row_ids)
        assert torch.allclose(state.weight, dense.weight[group.row_ids], rtol=1e-3, atol=1e-5)
        rows.update(state, group.sum_by_row(values))
        rows.finish_step()
        dense.step(torch.zeros(40, 4).index_add_(0, held, values), plan, step)
    everyone = rows.read(torch.arange(40))
    assert torch.allclose(everyone.weight, dense.weight, rtol=1e-3, atol=1e-5)
    assert torch.allclose(everyone.ema, dense.ema, rtol=1e-3, atol=1e-5)
    rows.apply_pending_updates()
    assert torch.allclose(rows.ema, dense.ema, rtol=1e-3, atol=1e-5)
    assert torch.allclose(rows.exp_avg_sq, dense.exp_avg_sq, rtol=1e-3, atol=1e-9)


def test_shares_of_the_table_begin_as_the_whole_does():
    whole = LazyAdamW(200_000, 2, schedule(), 7, CPU)
    for rank in range(3):
        share = LazyAdamW(200_000, 2, schedule(), 7, CPU, rank, 3)
        assert torch.equal(share.weight, whole.weight[rank::3])


def test_rate_rises_then_falls_to_nothing():
    rates = [schedule().lr_at(step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[0] < rates[10] < rates[19]
    assert rates[999] < 1e-5
    longer = [schedule(warm_up=0.2).lr_at(step) for step in range(1000)]
    assert longer.index(max(longer)) == pytest.approx(199, abs=1)


def test_mean_of_weights_lags_behind_them_and_swaps_back():
    net = nn.Linear(3, 1)
    optimizer, plan = DenseAdamW(net), schedule(total_steps=50)
    for step in range(50):
        net(torch.ones(8, 3)).sum().backward()
        optimizer.step(plan.coefficients(step))
    last = net.bias.clone()
    with optimizer.averaged_weights():
        assert net.bias > last  # the gradient pushes the bias down, and its mean is behind
    assert torch.equal(net.bias, last)


def test_threads_that_share_many_rows_move_them_as_one_does():
    numbers = torch.arange(2 * MIN_ROWS_PER_THREAD + 1).repeat(2)
    values, weights = torch.randn(len(numbers), 4), []
    for threads in (1, 2):
        rows = LazyAdamW(2 * MIN_ROWS_PER_THREAD + 1, 4, schedule(), 1, CPU)
        own = LocalRows(
            rows, RowThreads(TrainingSettings(1, 8, 0.01, 2.0, 0.9, threads=threads), ProcessGroup(0, 1, CPU))
        )
        group = UniqueRows.of(numbers)
        assert torch.equal(own.read(group.row_ids), rows.weight)
        own.step(group, values)
        weights.append(rows.weight)
    assert len(own.read_last) == 2
    assert torch.equal(*weights)
