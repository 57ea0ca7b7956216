"""The optimizer against torch's AdamW, and the mean of the weights."""

import pytest
import torch
from torch import nn

from include.trainer.job import Training
from include.trainer.optimizer import Optimizer


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Linear(4, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.table(x))).squeeze(1)


def plan(**changes: float) -> Training:
    return Training(epochs=1, batch_size=8, learning_rate=0.01, **{"embedding_decay": 2.0, "ema": 0.9, **changes})


def test_steps_are_adamw_with_decay_on_the_table_alone():
    ours, theirs = Toy(), Toy()
    optimizer = Optimizer(ours, plan(), total=20)
    groups = [{"params": theirs.table.parameters(), "weight_decay": 2.0},
              {"params": theirs.head.parameters(), "weight_decay": 0.0}]  # fmt: skip
    reference = torch.optim.AdamW(groups, lr=0.01)
    for step in range(20):
        x = torch.randn(8, 4)
        for net in (ours, theirs):
            (net(x) - x.sum(1)).square().mean().backward()
        for group in reference.param_groups:
            group["lr"] = optimizer.rate_at(step)
        reference.step()
        reference.zero_grad()
        optimizer.step(step)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_rate_rises_then_falls_to_nothing():
    optimizer = Optimizer(Toy(), plan(), total=1000)
    rates = [optimizer.rate_at(step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[0] < rates[10] < rates[19]
    assert rates[999] < 1e-5


def test_mean_of_weights_lags_behind_them_and_swaps_back():
    net = Toy()
    optimizer = Optimizer(net, plan(), total=50)
    for step in range(50):
        net(torch.ones(8, 4)).sum().backward()
        optimizer.step(step)
    last = net.head.bias.clone()
    optimizer.swap()
    assert net.head.bias > last  # the gradient pushes the bias down, and its mean is behind
    optimizer.swap()
    assert torch.equal(net.head.bias, last)
