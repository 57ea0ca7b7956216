"""The layers of DCN-v2: `[batch, width]` in, `[batch, width]` or the next layer's width out.

Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv:2008.13535); equation numbers are theirs.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class Crossing(torch.autograd.Function):
    """Full-rank cross layers one after the other, with a gradient that passes over the batch as seldom as can be."""

    @staticmethod
    def forward(ctx: Any, x0: Tensor, *layers: Tensor) -> Tensor:
        """`layers` is each one's W and b."""
        x, kept = x0, [x0]
        cast = [layer.to(x0.dtype) for layer in layers]
        for weight, bias in zip(cast[::2], cast[1::2], strict=True):
            crossing = torch.addmm(bias, x, weight.T)
            kept += [x, crossing, weight]
            x = torch.addcmul(x, x0, crossing)
        ctx.save_for_backward(*kept)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x0, *kept = ctx.saved_tensors
        above, of_x0 = gradients[0].clone(memory_format=torch.contiguous_format), torch.zeros_like(x0)
        of_layers: list[Tensor] = []
        for x, crossing, weight in zip(kept[-3::-3], kept[-2::-3], kept[-1::-3], strict=True):
            of_x0.addcmul_(above, crossing)
            inner = torch.mul(above, x0, out=crossing)  # which is no longer wanted
            of_layers = [(inner.T @ x).float(), inner.sum(0).float(), *of_layers]
            above.addmm_(inner, weight)
        return above.add_(of_x0), *of_layers


class Cross(nn.Module):
    """A full-rank cross layer, x0 ⊙ (W x + b) + x (equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        crossing: Tensor = self.linear(x)
        return x0 * crossing + x


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


class Crosses(nn.ModuleList):
    """Cross layers of one kind, each on what the one before has made of x0."""

    def forward(self, x0: Tensor) -> Tensor:
        if self and isinstance(self[0], Cross) and not torch.onnx.is_in_onnx_export():
            crossed: Tensor = Crossing.apply(x0, *self.parameters())  # type: ignore[no-untyped-call]
            return crossed
        x = x0
        for layer in self:
            x = layer(x0, x)
        return x


class Rectifying(torch.autograd.Function):
    """ReLU(W x + b), of which dropout keeps the units whose random bytes are at least `dropped`.

    What is kept is divided by its share (inverted dropout) where that costs nothing, at the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, drawn: Tensor, dropped: int) -> Tensor:
        ctx.scale, weight = 256 / (256 - dropped), weight.to(x.dtype)
        active = torch.addmm(bias.to(x.dtype), x, weight.T, beta=ctx.scale, alpha=ctx.scale).relu_()
        active = _where_above(dropped - 1, drawn.to(x.dtype), active)
        ctx.save_for_backward(x, weight, active)
        return active

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, active = ctx.saved_tensors
        inner = _where_above(0, active, gradients[0])
        wide = (inner.T @ x).float() * ctx.scale, inner.sum(0).float() * ctx.scale
        return inner @ (weight * ctx.scale), *wide, None, None


def _where_above(bound: float, ruling: Tensor, x: Tensor) -> Tensor:
    """x where `ruling` is above the bound, else 0; ReLU's gradient, and much faster than a comparison."""
    found: Tensor = torch.ops.aten.threshold_backward(x, ruling, bound)
    return found


class Hidden(nn.Linear):
    """A hidden layer; with random bytes `[batch, size]`, one that drops about the share `dropout`, a multiple of 1/256."""

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__(width, size)
        self.dropped = min(round(dropout * 256), 255)

    def forward(self, x: Tensor, drawn: Tensor | None = None) -> Tensor:
        if drawn is None or not self.dropped:
            return torch.relu(super().forward(x))
        kept: Tensor = Rectifying.apply(x, self.weight, self.bias, drawn, self.dropped)  # type: ignore[no-untyped-call]
        return kept


class Deep(nn.ModuleList):
    """Hidden layers one after the other."""

    def __init__(self, width: int, sizes: tuple[int, ...], dropout: float) -> None:
        inputs = (width, *sizes)
        super().__init__(Hidden(*pair, dropout) for pair in pairwise(inputs))
        self.sizes, self.width = list(sizes), inputs[-1]

    def forward(self, x: Tensor, drawn: Tensor | None = None) -> Tensor:
        """`drawn`, uint8 `[batch, all units]`, says which of them to drop."""
        of_layers = (None,) * len(self) if drawn is None else torch.split(drawn, self.sizes, dim=1)
        for layer, own in zip(self, of_layers, strict=True):
            x = layer(x, own)
        return x
