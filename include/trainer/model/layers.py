"""The layers of DCN-v2: `[batch, width]` in, `[batch, width]` or the next layer's width out.

Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv:2008.13535); equation numbers are theirs.

An input's last columns may be data, which need no gradient: `grad_columns` says how many of its first columns have one,
and None that all do.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class FullRankCrossFunction(torch.autograd.Function):
    """Full-rank cross layers one after the other, with a gradient that passes over the batch as seldom as can be."""

    @staticmethod
    def forward(ctx: Any, x0: Tensor, grad_columns: int | None, *layers: Tensor) -> Tensor:
        """Return the last layer's output `[batch, width]`; `layers` is W and b of each in turn."""
        ctx.columns, x, saved = slice(grad_columns), x0, [x0]
        cast = [layer.to(x0.dtype) for layer in layers]
        for weight, bias in zip(cast[::2], cast[1::2], strict=True):
            linear = torch.addmm(bias, x, weight.T)
            saved += [x, linear, weight]
            x = torch.addcmul(x, x0, linear)
        ctx.save_for_backward(*saved)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x0 and of each W and b."""
        (x0, *saved), columns = ctx.saved_tensors, ctx.columns
        x_grad, x0_grad = gradients[0].clone(memory_format=torch.contiguous_format), torch.zeros_like(x0)
        layer_grads: list[Tensor] = []
        for layer in range(len(saved) - 3, -1, -3):
            x, linear, weight = saved[layer : layer + 3]
            x0_grad[:, columns].addcmul_(x_grad[:, columns], linear[:, columns])
            linear_grad = torch.mul(x_grad, x0, out=linear)  # in place: its values have had their last use
            layer_grads = [(linear_grad.T @ x).float(), linear_grad.sum(0).float(), *layer_grads]
            needed = slice(None) if layer else columns
            x_grad[:, needed].addmm_(linear_grad, weight[:, needed])
        x0_grad[:, columns].add_(x_grad[:, columns])
        return x0_grad, None, *layer_grads


class CrossLayer(nn.Module):
    """A full-rank cross layer, x0 ⊙ (W x + b) + x (equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        linear: Tensor = self.linear(x)
        return x0 * linear + x


class LowRankCrossLayer(nn.Module):
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
            linear: Tensor = self.up[0](self.down[0](x))
            return x0 * linear + x
        gates = torch.softmax(self.gate(x), dim=1)
        experts = [
            up(torch.tanh(middle(torch.tanh(down(x)))))
            for down, middle, up in zip(self.down, self.middle, self.up, strict=True)
        ]
        return x0 * (torch.stack(experts, dim=2) * gates.unsqueeze(1)).sum(2) + x


class CrossNetwork(nn.ModuleList):
    """Cross layers of one kind, each applied to the output of the one before and to x0."""

    def forward(self, x0: Tensor, grad_columns: int | None = None) -> Tensor:
        """Return the last layer's output `[batch, width]`."""
        if self and isinstance(self[0], CrossLayer) and not torch.onnx.is_in_onnx_export():
            output: Tensor = FullRankCrossFunction.apply(x0, grad_columns, *self.parameters())  # type: ignore[no-untyped-call]
            return output
        x = x0
        for layer in self:
            x = layer(x0, x)
        return x


class DropoutReLUFunction(torch.autograd.Function):
    """ReLU(W x + b) with dropout, which keeps the units whose random bytes are at least `threshold`.

    Kept units are divided by the share that is kept (inverted dropout) where that costs nothing, at the product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        grad_columns: int | None,
        weight: Tensor,
        bias: Tensor,
        dropout_bytes: Tensor,
        threshold: int,
    ) -> Tensor:
        """Return the layer's output `[batch, units]`."""
        ctx.columns, ctx.scale, weight = slice(grad_columns), 256 / (256 - threshold), weight.to(x.dtype)
        output = torch.addmm(bias.to(x.dtype), x, weight.T, beta=ctx.scale, alpha=ctx.scale).relu_()
        output = _where_above(threshold - 1, dropout_bytes.to(x.dtype), output)
        ctx.save_for_backward(x, weight, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, W and b."""
        x, weight, output = ctx.saved_tensors
        linear_grad = _where_above(0, output, gradients[0])
        weight_grad, bias_grad = (linear_grad.T @ x).float() * ctx.scale, linear_grad.sum(0).float() * ctx.scale
        x_grad = torch.zeros_like(x)
        torch.mm(linear_grad, weight[:, ctx.columns] * ctx.scale, out=x_grad[:, ctx.columns])
        return x_grad, None, weight_grad, bias_grad, None, None


def _where_above(bound: float, condition: Tensor, x: Tensor) -> Tensor:
    """Return x where `condition` is above the bound, else 0; ReLU's gradient, and much faster than a comparison."""
    selected: Tensor = torch.ops.aten.threshold_backward(x, condition, bound)
    return selected


class HiddenLayer(nn.Linear):
    """ReLU(W x + b), with dropout where random bytes come along; the share that it drops is a multiple of 1/256."""

    def __init__(self, width: int, units: int, dropout: float) -> None:
        super().__init__(width, units)
        self.threshold = min(round(dropout * 256), 255)  #: bytes below it drop their unit

    def forward(self, x: Tensor, dropout_bytes: Tensor | None = None, grad_columns: int | None = None) -> Tensor:
        """Return `[batch, units]`; `dropout_bytes` are uint8 `[batch, units]`."""
        if dropout_bytes is None or not self.threshold:
            return torch.relu(super().forward(x))
        output: Tensor = DropoutReLUFunction.apply(  # type: ignore[no-untyped-call]
            x, grad_columns, self.weight, self.bias, dropout_bytes, self.threshold
        )
        return output


class DeepNetwork(nn.ModuleList):
    """Hidden layers one after the other; `width` is that of the output."""

    def __init__(self, width: int, sizes: tuple[int, ...], dropout: float) -> None:
        widths = (width, *sizes)
        super().__init__(HiddenLayer(*pair, dropout) for pair in pairwise(widths))
        self.sizes, self.width = list(sizes), widths[-1]

    def forward(self, x: Tensor, dropout_bytes: Tensor | None = None, grad_columns: int | None = None) -> Tensor:
        """Return `[batch, self.width]`; `dropout_bytes` are uint8 `[batch, units of all layers]`."""
        bytes_by_layer = (None,) * len(self) if dropout_bytes is None else torch.split(dropout_bytes, self.sizes, dim=1)
        for layer, own in zip(self, bytes_by_layer, strict=True):
            x, grad_columns = layer(x, own, grad_columns), None
        return x
