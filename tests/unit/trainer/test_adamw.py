"""The tower's optimizer against torch's AdamW, and the moving average of its weights."""

import torch
from torch import nn

from include.trainer.optim.adamw import DenseAdamW
from tests.unit.trainer.toys import schedule

torch.set_num_threads(1)


def test_the_tower_moves_as_adamw_without_decay() -> None:
    torch.manual_seed(3)
    tower, reference_tower = (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)) for _ in range(2))
    reference_tower.load_state_dict(tower.state_dict())
    optimizer, steps = DenseAdamW(tower), schedule(total_steps=20)
    reference = torch.optim.AdamW(reference_tower.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(20):
        x = torch.randn(8, 4)
        for net in (tower, reference_tower):
            (net(x).squeeze(1) - x.sum(1)).square().mean().backward()
        for group in reference.param_groups:
            group["lr"] = steps.lr_at(step)
        reference.step()
        reference.zero_grad()
        optimizer.step(steps.coefficients(step))
    for weight, expected in zip(tower.parameters(), reference_tower.parameters(), strict=True):
        assert torch.allclose(weight, expected, atol=1e-6)


def test_the_average_of_the_weights_lags_behind_them_and_swaps_back() -> None:
    net = nn.Linear(3, 1)
    optimizer, steps = DenseAdamW(net), schedule(total_steps=50)
    for step in range(50):
        net(torch.ones(8, 3)).sum().backward()
        optimizer.step(steps.coefficients(step))
    last = net.bias.clone()
    with optimizer.averaged_weights():
        assert net.bias > last  # the gradient pushes the bias down, and its average is behind
    assert torch.equal(net.bias, last)
