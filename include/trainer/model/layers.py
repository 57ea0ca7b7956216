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
    def forward(ctx: Any, x0: Tensor, learned: int | None, *layers: Tensor) -> Tensor:
        """`layers` is each one's W and b. Of x0 the first `learned` columns, or all, have a gradient."""
        ctx.learned, x, kept = slice(learned), x0, [x0]
        cast = [layer.to(x0.dtype) for layer in layers]
        for weight, bias in zip(cast[::2], cast[1::2], strict=True):
            crossing = torch.addmm(bias, x, weight.T)
            kept += [x, crossing, weight]
            x = torch.addcmul(x, x0, crossing)
        ctx.save_for_backward(*kept)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x0, *kept), learned = ctx.saved_tensors, ctx.learned
        above, of_x0 = gradients[0].clone(memory_format=torch.contiguous_format), torch.zeros_like(x0)
        of_layers: list[Tensor] = []
        for layer in range(len(kept) - 3, -1, -3):
            x, crossing, weight = kept[layer : layer + 3]
            of_x0[:, learned].addcmul_(above[:, learned], crossing[:, learned])
            inner = torch.mul(above, x0, out=crossing)  # which is no longer wanted
            of_layers = [(inner.T @ x).float(), inner.sum(0).float(), *of_layers]
            wanted = slice(None) if layer else learned
            above[:, wanted].addmm_(inner, weight[:, wanted])
        of_x0[:, learned].add_(above[:, learned])
        return of_x0, None, *of_layers


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

    def forward(self, x0: Tensor, learned: int | None = None) -> Tensor:
        """Of x0 the first `learned` columns, or all, have a gradient; the others are data."""
        if self and isinstance(self[0], Cross) and not torch.onnx.is_in_onnx_export():
            crossed: Tensor = Crossing.apply(x0, learned, *self.parameters())  # type: ignore[no-untyped-call]
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
    def forward(
        ctx: Any, x: Tensor, learned: int | None, weight: Tensor, bias: Tensor, drawn: Tensor, dropped: int
    ) -> Tensor:
        """Of x the first `learned` columns, or all, have a gradient."""
        ctx.learned, ctx.scale, weight = slice(learned), 256 / (256 - dropped), weight.to(x.dtype)
        active = torch.addmm(bias.to(x.dtype), x, weight.T, beta=ctx.scale, alpha=ctx.scale).relu_()
        active = _where_above(dropped - 1, drawn.to(x.dtype), active)
        ctx.save_for_backward(x, weight, active)
        return active

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, active = ctx.saved_tensors
        inner = _where_above(0, active, gradients[0])
        wide = (inner.T @ x).float() * ctx.scale, inner.sum(0).float() * ctx.scale
        of_x = torch.zeros_like(x)
        torch.mm(inner, weight[:, ctx.learned] * ctx.scale, out=of_x[:, ctx.learned])
        return of_x, None, *wide, None, None


def _where_above(bound: float, ruling: Tensor, x: Tensor) -> Tensor:
    """x where `ruling` is above the bound, else 0; ReLU's gradient, and much faster than a comparison."""
    found: Tensor = torch.ops.aten.threshold_backward(x, ruling, bound)
    return found


class Hidden(nn.Linear):
    """A hidden layer; with random bytes `[batch, size]`, one that drops about the share `dropout`, a multiple of 1/256."""

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__(width, size)
        self.dropped = min(round(dropout * 256), 255)

    def forward(self, x: Tensor, drawn: Tensor | None = None, learned: int | None = None) -> Tensor:
        if drawn is None or not self.dropped:
            return torch.relu(super().forward(x))
        layer = self.weight, self.bias
        kept: Tensor = Rectifying.apply(x, learned, *layer, drawn, self.dropped)  # type: ignore[no-untyped-call]
        return kept


class Deep(nn.ModuleList):
    """Hidden layers one after the other."""

    def __init__(self, width: int, sizes: tuple[int, ...], dropout: float) -> None:
        inputs = (width, *sizes)
        super().__init__(Hidden(*pair, dropout) for pair in pairwise(inputs))
        self.sizes, self.width = list(sizes), inputs[-1]

    def forward(self, x: Tensor, drawn: Tensor | None = None, learned: int | None = None) -> Tensor:
        """`drawn`, uint8 `[batch, all units]`, says which of them to drop. Of x the first `learned` columns, or all, have a
        gradient."""
        of_layers = (None,) * len(self) if drawn is None else torch.split(drawn, self.sizes, dim=1)
        for layer, own in zip(self, of_layers, strict=True):
            x, learned = layer(x, own, learned), None
        return x
