"""The models, DCN-v2 and a wide logistic regression: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`.

A `Net` is an embedding table with a tower on it. They part while training, because a table's rows move by a rule of their
own (`optim/lazy_adamw.py`), and come together in what is exported. A tower's parts stand in `layers.py` and `scaling.py`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.trainer.data.dataset import Fields
from include.trainer.job import Model
from include.trainer.model.layers import Cross, Crosses, Deep, LowRankCross
from include.trainer.model.scaling import Scale

#: A layer's input is as wide as a multiple of this, its last columns 0: matrix products of odd widths take up to twice as
#: long (fp32 on AVX512, 442 against 448 columns).
EVEN = 16


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


class DCN(nn.Module):
    """Cross layers beside an MLP (`parallel`) or below it (`stacked`), on embeddings `[batch, C, width]` and raw numbers.

    The numbers come scaled, each with its missing flag, or `embedded`: a score times its field's direction, and another
    vector of the field's own where the number is missing. With `first_order`, the last number of an embedding is its
    category's own effect, which is added to the logit as it is.
    """

    def __init__(self, shape: Model, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(fields, numbers)
        measured = len(fields.numeric)
        self.directions = (
            nn.Parameter(torch.randn(2, measured, shape.embedding) * 0.1) if shape.numbers == "embedded" else None
        )
        width = len(fields.sizes) * shape.embedding
        width += self.scale.outputs if self.directions is None else measured * shape.embedding
        self.padding = -width % EVEN
        width += self.padding
        #: Of the layers' input, the columns that are more than data come first; None is all.
        self.learned = len(fields.sizes) * shape.embedding if self.directions is None else None
        self.crosses = Crosses(
            LowRankCross(width, shape.cross_rank, shape.experts) if shape.cross_rank else Cross(width)
            for _ in range(shape.cross_layers)
        )
        self.stacked = shape.structure == "stacked"
        self.first_order = shape.first_order > 0
        self.deep = Deep(width, shape.hidden, shape.dropout)
        self.widths = [self.deep.width] if self.stacked else [width, self.deep.width]
        self.head = nn.Linear(sum(self.widths), 1)

    def forward(self, vectors: Tensor, numbers: Tensor, drawn: Tensor | None = None) -> Tensor:
        """`drawn`, random bytes `[batch, hidden units]`, say which of these dropout leaves out: none without them."""
        effects = vectors[..., -1].sum(1) if self.first_order else 0
        vectors = vectors[..., :-1] if self.first_order else vectors
        padding = numbers.new_zeros(numbers.shape[0], self.padding)
        x0 = _lowered(torch.cat([vectors.flatten(1), self._numbers(numbers), padding], dim=1))
        x = self.crosses(x0, self.learned)
        lasts = [self.deep(x, drawn)] if self.stacked else [x, self.deep(x0, drawn, self.learned)]
        weights = torch.split(self.head.weight[0], self.widths)
        return sum((last @ weight for last, weight in zip(lasts, weights, strict=True)), self.head.bias) + effects

    def _numbers(self, numbers: Tensor) -> Tensor:
        scaled: Tensor = self.scale(numbers)
        if self.directions is None:
            return scaled
        scores, missing = scaled.unsqueeze(-1).chunk(2, dim=1)
        return (scores * self.directions[0] + missing * self.directions[1]).flatten(1)


class Logistic(nn.Module):
    """A wide logistic regression: one weight an id (a vector of width 1), one a scaled number, one a missing flag."""

    def __init__(self, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = Scale(fields, numbers)
        self.weights = nn.Parameter(torch.zeros(self.scale.outputs))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, vectors: Tensor, numbers: Tensor, _drawn: Tensor | None = None) -> Tensor:
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


def build(family: str, shape: Model, fields: Fields, numbers: NDArray[np.float32]) -> Tower:
    return Logistic(fields, numbers) if family == "logistic" else DCN(shape, fields, numbers)


def width(family: str, shape: Model) -> int:
    """Of a row of the table."""
    return 1 if family == "logistic" else shape.embedding + (shape.first_order > 0)


def _lowered(x: Tensor) -> Tensor:
    """In autocast's type from the start, so that the layers need not convert to and fro."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
