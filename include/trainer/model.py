"""The models, DCN-v2 and a wide logistic regression: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`.

A `Net` is an embedding table with a tower on it. They part while training, because a table's rows move by a rule of their
own (`table.py`), and come together in what is exported.

DCN-v2: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv:2008.13535); equation numbers are theirs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.domain.encoding import Encoding
from include.trainer.job import Model

#: Scaled numbers stay within the normal scores of this quantile and its mirror image (±2.05): a number never seen in
#: training is at most as strange as the strangest in fifty.
TAIL = 0.02
#: Rows of the training data that decide the scaling; more change it by less than the knots' own width.
SAMPLE = 500_000
#: A layer's input is as wide as a multiple of this, its last columns 0: matrix products of odd widths take up to twice as
#: long (fp32 on AVX512, 442 against 448 columns).
EVEN = 16


class Scale(nn.Module):
    """Raw numbers `[batch, N]` → rank-Gaussian scores and missing flags `[batch, 2 N]`.

    A number's rank among the training data, read at the encoding's knots, becomes the normal score of that rank, linear
    between the knots and constant outside; a missing number becomes 0 and raises its flag.
    """

    starts: Tensor  #: `[N, pieces]`, ascending, as are `widths`, `slopes` and `heights`, the score at a piece's start
    widths: Tensor
    slopes: Tensor
    heights: Tensor

    def __init__(self, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        curves = [_curve(np.array(encoding.knots[f]), numbers[:SAMPLE, i]) for i, f in enumerate(encoding.numeric)]
        pieces = max((len(curve.widths) for curve in curves), default=1)
        for name, beyond in (("starts", np.inf), ("widths", 0), ("slopes", 0), ("heights", 0)):
            padded = [_padded(getattr(curve, name), pieces, beyond) for curve in curves]
            self.register_buffer(name, torch.tensor(np.array(padded), dtype=torch.float32).reshape(len(curves), pieces))
        self.outputs = 2 * len(curves)

    def forward(self, numbers: Tensor) -> Tensor:
        missing = torch.isnan(numbers)
        known = torch.nan_to_num(numbers)
        scores = self._summed(known) if exporting() else self._searched(known)
        return torch.cat([torch.where(missing, torch.zeros_like(scores), scores), missing.float()], dim=1)

    def _searched(self, numbers: Tensor) -> Tensor:
        """The score within the piece that a binary search finds."""
        columns = numbers.T.contiguous()
        piece = (torch.searchsorted(self.starts, columns, right=True) - 1).clamp_(min=0)
        inside = torch.minimum(torch.relu_(columns - self.starts.gather(1, piece)), self.widths.gather(1, piece))
        return torch.addcmul(self.heights.gather(1, piece), inside, self.slopes.gather(1, piece)).T

    def _summed(self, numbers: Tensor) -> Tensor:
        """The same as what each piece adds to the lowest score: ONNX knows no search."""
        inside = torch.minimum(torch.relu(numbers.unsqueeze(-1) - self.starts), self.widths)
        return (inside * self.slopes).sum(-1) + self.heights[:, 0]


class Table(nn.Module):
    """One embedding table for all categorical fields, each at its offset: ids `[batch, C]` → `[batch, C, width]`."""

    offsets: Tensor

    def __init__(self, sizes: list[int], rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
        self.register_buffer("offsets", offsets(sizes))

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.rows(ids + self.offsets)
        return found


def offsets(sizes: list[int]) -> Tensor:
    """Where each field's rows begin, int64 `[C]`."""
    return torch.tensor([0, *np.cumsum(sizes)[:-1]][: len(sizes)], dtype=torch.int64)


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
        wide = (inner.T @ x).float(), inner.sum(0, dtype=torch.float32)
        return above * crossing, torch.addmm(above, inner, weight), *wide


class Cross(nn.Module):
    """A full-rank cross layer, x0 ⊙ (W x + b) + x (equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        if exporting():
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


class DCN(nn.Module):
    """Cross layers beside an MLP (`parallel`) or below it (`stacked`), on embeddings `[batch, C, width]` and raw numbers.

    The numbers come scaled, each with its missing flag, or `embedded`: a score times its field's direction, and another
    vector of the field's own where the number is missing.
    """

    def __init__(self, shape: Model, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(encoding, numbers)
        fields = len(encoding.numeric)
        self.directions = (
            nn.Parameter(torch.randn(2, fields, shape.embedding) * 0.1) if shape.numbers == "embedded" else None
        )
        width = len(encoding.sizes) * shape.embedding
        width += self.scale.outputs if self.directions is None else fields * shape.embedding
        self.padding = -width % EVEN
        width += self.padding
        self.crosses = nn.ModuleList(
            LowRankCross(width, shape.cross_rank, shape.experts) if shape.cross_rank else Cross(width)
            for _ in range(shape.cross_layers)
        )
        self.stacked = shape.structure == "stacked"
        self.deep, deep_width = _mlp(width, shape.hidden, shape.dropout)
        self.head = nn.Linear(deep_width if self.stacked else deep_width + width, 1)

    def forward(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        padding = numbers.new_zeros(numbers.shape[0], self.padding)
        x0 = _lowered(torch.cat([vectors.flatten(1), self._numbers(numbers), padding], dim=1))
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        last = self.deep(x) if self.stacked else torch.cat([x, self.deep(x0)], dim=1)
        logits: Tensor = self.head(last).sum(1)
        return logits

    def _numbers(self, numbers: Tensor) -> Tensor:
        scaled: Tensor = self.scale(numbers)
        if self.directions is None:
            return scaled
        scores, missing = scaled.unsqueeze(-1).chunk(2, dim=1)
        return (scores * self.directions[0] + missing * self.directions[1]).flatten(1)


class Logistic(nn.Module):
    """A wide logistic regression: one weight an id (a vector of width 1), one a scaled number, one a missing flag."""

    def __init__(self, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(encoding, numbers)
        self.weights = nn.Parameter(torch.zeros(self.scale.outputs))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        logits: Tensor = vectors.sum((1, 2)) + self.scale(numbers) @ self.weights + self.bias
        return logits


Tower = DCN | Logistic


class Net(nn.Module):
    """A table and its tower: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`."""

    def __init__(self, table: Table, tower: Tower) -> None:
        super().__init__()
        self.table, self.tower = table, tower

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        logits: Tensor = self.tower(self.table(ids), numbers)
        return logits


def build(family: str, shape: Model, encoding: Encoding, numbers: NDArray[np.float32]) -> Tower:
    return Logistic(encoding, numbers) if family == "logistic" else DCN(shape, encoding, numbers)


def width(family: str, shape: Model) -> int:
    """Of a row of the table."""
    return 1 if family == "logistic" else shape.embedding


def exporting() -> bool:
    """Whether the model is being written down as an ONNX graph, whose operators are few and plain."""
    return bool(torch.onnx.is_in_onnx_export())


def _lowered(x: Tensor) -> Tensor:
    """In autocast's type from the start, so that the layers need not convert to and fro."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


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


def _mlp(width: int, hidden: tuple[int, ...], dropout: float) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(inplace=True), Dropout(dropout)]
        width = size
    return nn.Sequential(*layers), width


@dataclass(frozen=True)
class Curve:
    """Number → normal score in linear pieces, each `[pieces]`; a number left of them all has the first one's height."""

    starts: NDArray[np.float64]
    widths: NDArray[np.float64]
    slopes: NDArray[np.float64]
    heights: NDArray[np.float64]


def _curve(knots: NDArray[np.float64], numbers: NDArray[np.float32]) -> Curve:
    knots = np.unique(knots.astype(np.float32)).astype(np.float64)
    known = np.sort(numbers[np.isfinite(numbers)])
    # Half of the ties count as below, so that a value held by most rows sits in the middle of the ranks it fills.
    below = (np.searchsorted(known, knots, "left") + np.searchsorted(known, knots, "right")) / 2
    ranks = torch.from_numpy(np.clip(below / max(len(known), 1), TAIL, 1 - TAIL))
    scores = torch.special.ndtri(ranks).numpy() if len(known) else np.zeros(len(knots))
    if len(knots) == 1:
        return Curve(knots, np.zeros(1), np.zeros(1), scores)
    widths = np.diff(knots)
    return Curve(knots[:-1], widths, np.diff(scores) / widths, scores[:-1])


def _padded(values: NDArray[np.float64], length: int, beyond: float) -> NDArray[np.float64]:
    return np.pad(values, (0, length - len(values)), constant_values=beyond)
