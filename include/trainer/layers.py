"""The layers of DCN-v2: `[batch, width]` in, `[batch, width]` or the next layer's width out.

Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv:2008.13535); equation numbers are theirs.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Crossing(torch.autograd.Function):
    """x0 ⊙ (W x + b) + x with a gradient that passes over the batch as seldom as can be."""

    @staticmethod
    def forward(ctx: Any, x0: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        crossing = torch.addmm(bias, x, weight.T)
        ctx.save_for_backward(x0, x, weight, crossing)
        return torch.addcmul(x, x0, crossing)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, x, weight, crossing = ctx.saved_tensors
        above = gradients[0].contiguous()
        inner = above * x0
        wide = (inner.T @ x).float(), inner.sum(0).float()
        return above * crossing, torch.addmm(above, inner, weight), *wide


class Cross(nn.Module):
    """A full-rank cross layer, x0 ⊙ (W x + b) + x (equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            crossing: Tensor = self.linear(x)
            return x0 * crossing + x
        crossed: Tensor = Crossing.apply(x0, x, self.linear.weight, self.linear.bias)  # type: ignore[no-untyped-call]
        return crossed


class LowRankCross(nn.Module):
    """A low-rank cross layer, x0 ⊙ (U Vᵀx + b) + x (equation 2), or a gated mixture of such (equations 3 and 4).

    With K experts the layer is Σᵢ gᵢ(x) x0 ⊙ (Uᵢ tanh(Cᵢ tanh(Vᵢᵀx)) + bᵢ) + x, where g is a softmax over the experts.
    """

    def __init__(self, width: int, rank: int, experts: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(experts))
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in range(experts))
        self.middle = nn.ModuleList(nn.Linear(rank, rank, bias=False) for _ in range(experts if experts > 1 else 0))
        self.gate = nn.Linear(width, experts) if experts > 1 else None

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        if self.gate is None:
            crossed: Tensor = self.up[0](self.down[0](x))
            return x0 * crossed + x
        gates = torch.softmax(self.gate(x), dim=1)
        experts = [up(torch.tanh(middle(torch.tanh(down(x)))))
                   for down, middle, up in zip(self.down, self.middle, self.up, strict=True)]  # fmt: skip
        return x0 * (torch.stack(experts, dim=2) * gates.unsqueeze(1)).sum(2) + x


class Dropout(nn.Module):
    """Inverted dropout by random bytes: a mask of numbers, each drawn for itself, takes longer than the layer it is for.

    The share that is dropped is a multiple of 1/256.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        drawn = words.random_(torch.iinfo(torch.int64).min, None).view(torch.uint8)[: x.numel()].view(x.shape)
        return x * (drawn >= self.dropped).to(x.dtype).mul_(256 / (256 - self.dropped))


def mlp(width: int, hidden: tuple[int, ...], dropout: float) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(inplace=True), Dropout(dropout)]
        width = size
    return nn.Sequential(*layers), width
