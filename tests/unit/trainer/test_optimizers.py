"""The optimizers against torch's AdamW and the dense algorithm, the schedule, and the mean of the weights."""

import pytest
import torch
from torch import nn

from include.trainer.distributed.process_group import World
from include.trainer.distributed.row_threads import Crew
from include.trainer.job import Training
from include.trainer.optim.adamw import Optimizer
from include.trainer.optim.embedding_table import FEW, Own
from include.trainer.optim.lazy_adamw import Grouped, Rows
from include.trainer.optim.schedule import BETAS, EPSILON, Schedule

CPU = torch.device("cpu")
torch.set_num_threads(1)


def schedule(**changes: float) -> Schedule:
    return Schedule(**{"rate": 0.01, "decay": 2.0, "ema": 0.9, "warm_up": 0.02, "total": 1000, **changes})


def test_the_tower_moves_as_adamw_without_decay():
    torch.manual_seed(3)
    ours, theirs = (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer, plan = Optimizer(ours), schedule(total=20)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(20):
        x = torch.randn(8, 4)
        for net in (ours, theirs):
            (net(x).squeeze(1) - x.sum(1)).square().mean().backward()
        for group in reference.param_groups:
            group["lr"] = plan.rate_at(step)
        reference.step()
        reference.zero_grad()
        optimizer.step(plan.pace(step))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("count", [9, 60_000, 5_000_000])
def test_rows_of_a_batch_are_named_once_and_their_values_summed_whatever_the_tables_size(count):
    source = torch.Generator().manual_seed(4)
    numbers = torch.randint(0, count, (500, 3), generator=source)
    numbers[::2] = numbers[:1]
    values = torch.randn(1500, 2, generator=source)
    grouped = Grouped.of(numbers)
    assert torch.equal(grouped.rows, numbers.unique())
    assert torch.equal(grouped.rows[grouped.place], numbers)
    dense = torch.zeros(len(grouped.rows), 2).index_add_(0, grouped.place.flatten(), values)
    assert torch.allclose(grouped.sums(values), dense, atol=1e-4)


class Dense:
    """The table's algorithm on every row in every step."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight, self.mean = weight.clone(), weight.clone()
        self.first, self.second = torch.zeros_like(weight), torch.zeros(len(weight), 1)

    def step(self, gradient: torch.Tensor, plan: Schedule, step: int) -> None:
        pace = plan.pace(step)
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).add_(gradient.square().mean(1, keepdim=True), alpha=1 - BETAS[1])
        self.weight.mul_(pace.keep)
        self.weight.addcdiv_(self.first, self.second.sqrt().div(pace.correction).add(EPSILON), value=-pace.size)
        self.mean.lerp_(self.weight, 1 - pace.kept)


@pytest.mark.parametrize("decay", [0.0, 5.0, 100.0])
def test_rows_that_no_batch_held_are_where_dense_steps_would_have_left_them(decay):
    torch.manual_seed(0)
    plan = schedule(decay=decay, ema=0.99, total=150)
    rows = Rows(40, 4, plan, 1, CPU)
    dense = Dense(rows.weight)
    for step in range(150):
        if step == 70:
            rows.settle()
        held = torch.randint(0, 40 if step % 3 else 5, (6,))
        values = torch.randn(6, 4)
        group = Grouped.of(held)
        taken = rows.take(group.rows)
        assert torch.allclose(taken.weight, dense.weight[group.rows], rtol=1e-3, atol=1e-5)
        rows.move(taken, group.sums(values))
        rows.pass_step()
        dense.step(torch.zeros(40, 4).index_add_(0, held, values), plan, step)
    everyone = rows.take(torch.arange(40))
    assert torch.allclose(everyone.weight, dense.weight, rtol=1e-3, atol=1e-5)
    assert torch.allclose(everyone.mean, dense.mean, rtol=1e-3, atol=1e-5)
    rows.settle()
    assert torch.allclose(rows.mean, dense.mean, rtol=1e-3, atol=1e-5)
    assert torch.allclose(rows.second, dense.second, rtol=1e-3, atol=1e-9)


def test_shares_of_the_table_begin_as_the_whole_does():
    whole = Rows(200_000, 2, schedule(), 7, CPU)
    for rank in range(3):
        share = Rows(200_000, 2, schedule(), 7, CPU, rank, 3)
        assert torch.equal(share.weight, whole.weight[rank::3])


def test_rate_rises_then_falls_to_nothing():
    rates = [schedule().rate_at(step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[0] < rates[10] < rates[19]
    assert rates[999] < 1e-5
    longer = [schedule(warm_up=0.2).rate_at(step) for step in range(1000)]
    assert longer.index(max(longer)) == pytest.approx(199, abs=1)


def test_mean_of_weights_lags_behind_them_and_swaps_back():
    net = nn.Linear(3, 1)
    optimizer, plan = Optimizer(net), schedule(total=50)
    for step in range(50):
        net(torch.ones(8, 3)).sum().backward()
        optimizer.step(plan.pace(step))
    last = net.bias.clone()
    with optimizer.averaged():
        assert net.bias > last  # the gradient pushes the bias down, and its mean is behind
    assert torch.equal(net.bias, last)


def test_threads_that_share_many_rows_move_them_as_one_does():
    numbers = torch.arange(2 * FEW + 1).repeat(2)
    values, weights = torch.randn(len(numbers), 4), []
    for threads in (1, 2):
        rows = Rows(2 * FEW + 1, 4, schedule(), 1, CPU)
        own = Own(rows, Crew(Training(1, 8, 0.01, 2.0, 0.9, threads=threads), World(0, 1, CPU)))
        group = Grouped.of(numbers)
        assert torch.equal(own.read(group.rows), rows.weight)
        own.step(group, values)
        weights.append(rows.weight)
    assert len(own.taken) == 2
    assert torch.equal(*weights)
