"""The models, DCN-v2 and a wide logistic regression: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`.

DCN-v2: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021 (arXiv:2008.13535); equation numbers are theirs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor, nn

from include.domain.encoding import Encoding
from include.trainer.job import Model

#: Scaled numbers stay within the normal scores of this quantile and its mirror image (±2.05): a number never seen in
#: training is at most as strange as the strangest in fifty.
TAIL = 0.02
#: Rows of the training data that decide the scaling; more change it by less than the knots' own width.
SAMPLE = 500_000


class Scale(nn.Module):
    """Raw numbers `[batch, N]` → rank-Gaussian scores and missing flags `[batch, 2 N]`.

    A number's rank among the training data, read at the encoding's knots, becomes the normal score of that rank, linear
    between the knots and constant outside; a missing number becomes 0 and raises its flag.
    """

    starts: Tensor  #: `[N, pieces]`, as `widths` and `slopes`
    widths: Tensor
    slopes: Tensor
    lowest: Tensor  #: `[N]`

    def __init__(self, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        curves = [_curve(np.array(encoding.knots[f]), numbers[:SAMPLE, i]) for i, f in enumerate(encoding.numeric)]
        pieces = max((len(curve.widths) for curve in curves), default=0)
        for name in ("starts", "widths", "slopes"):
            padded = [np.pad(getattr(curve, name), (0, pieces - len(curve.widths))) for curve in curves]
            self.register_buffer(name, torch.tensor(np.array(padded), dtype=torch.float32).reshape(len(curves), pieces))
        self.register_buffer("lowest", torch.tensor([curve.lowest for curve in curves], dtype=torch.float32))
        self.outputs = 2 * len(curves)

    def forward(self, numbers: Tensor) -> Tensor:
        missing = torch.isnan(numbers)
        inside = torch.minimum(torch.relu(torch.nan_to_num(numbers).unsqueeze(-1) - self.starts), self.widths)
        scores = (inside * self.slopes).sum(-1) + self.lowest
        return torch.cat([torch.where(missing, torch.zeros_like(scores), scores), missing.float()], dim=1)


class Table(nn.Module):
    """One embedding table for all categorical fields, each at its offset: ids `[batch, C]` → `[batch, C, width]`."""

    offsets: Tensor

    def __init__(self, sizes: list[int], width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(max(sum(sizes), 1), width)
        self.register_buffer("offsets", torch.tensor([0, *np.cumsum(sizes)[:-1]][: len(sizes)], dtype=torch.int64))
        nn.init.normal_(self.rows.weight, std=0.01)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.rows(ids + self.offsets)
        return found


class Cross(nn.Module):
    """A full-rank cross layer, x0 ⊙ (W x + b) + x (equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        crossed: Tensor = x0 * self.linear(x) + x
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
    """Cross layers beside an MLP (`parallel`) or below it (`stacked`), on embeddings, scaled numbers, missing flags."""

    def __init__(self, shape: Model, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(encoding, numbers)
        self.table = Table(encoding.sizes, shape.embedding)
        width = len(encoding.sizes) * shape.embedding + self.scale.outputs
        self.crosses = nn.ModuleList(
            LowRankCross(width, shape.cross_rank, shape.experts) if shape.cross_rank else Cross(width)
            for _ in range(shape.cross_layers)
        )
        self.stacked = shape.structure == "stacked"
        self.deep, deep_width = _mlp(width, shape.hidden, shape.dropout)
        self.head = nn.Linear(deep_width if self.stacked else deep_width + width, 1)

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        x0 = torch.cat([self.table(ids).flatten(1), self.scale(numbers)], dim=1)
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        last = self.deep(x) if self.stacked else torch.cat([x, self.deep(x0)], dim=1)
        logits: Tensor = self.head(last).squeeze(1)
        return logits


class Logistic(nn.Module):
    """A wide logistic regression: one weight an id, one a scaled number, one a missing flag."""

    def __init__(self, encoding: Encoding, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(encoding, numbers)
        self.table = Table(encoding.sizes, 1)
        self.weights = nn.Parameter(torch.zeros(self.scale.outputs))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        logits: Tensor = self.table(ids).sum((1, 2)) + self.scale(numbers) @ self.weights + self.bias
        return logits


def build(family: str, shape: Model, encoding: Encoding, numbers: NDArray[np.float32]) -> DCN | Logistic:
    return Logistic(encoding, numbers) if family == "logistic" else DCN(shape, encoding, numbers)


def _mlp(width: int, hidden: tuple[int, ...], dropout: float) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers), width


@dataclass(frozen=True)
class Curve:
    """Number → normal score in linear pieces, each `[pieces]`; left of all of them the score is `lowest`."""

    starts: NDArray[np.float64]
    widths: NDArray[np.float64]
    slopes: NDArray[np.float64]
    lowest: float


def _curve(knots: NDArray[np.float64], numbers: NDArray[np.float32]) -> Curve:
    knots = np.unique(knots.astype(np.float32)).astype(np.float64)
    known = np.sort(numbers[np.isfinite(numbers)])
    # Half of the ties count as below, so that a value held by most rows sits in the middle of the ranks it fills.
    below = (np.searchsorted(known, knots, "left") + np.searchsorted(known, knots, "right")) / 2
    scores = ndtri(np.clip(below / len(known), TAIL, 1 - TAIL)) if len(known) else np.zeros(len(knots))
    widths = np.diff(knots)
    return Curve(knots[:-1], widths, np.diff(scores) / widths, float(scores[0]))
