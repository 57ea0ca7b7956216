"""The networks, DCN-v2 and a wide logistic regression: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`.

A `Network` is an embedding table with a tower on it. They are apart while training, because a table's rows move by a rule
of their own (`optim/lazy_adamw.py`), and come together in what is exported. A tower's parts stand in `layers.py` and
`scaling.py`. Names of parameters and modules are keys of the weights file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.domain.training.families import FAMILIES, FamilyName, NetworkName
from include.domain.training.job_settings import NetworkSettings
from include.trainer.data.dataset import Fields
from include.trainer.model.layers import CrossLayer, CrossNetwork, DeepNetwork, LowRankCrossLayer
from include.trainer.model.scaling import RankGaussianScaler

#: A layer's input is as wide as a multiple of this, its last columns 0: matrix products of odd widths take up to twice as
#: long (fp32 on AVX512, 442 against 448 columns).
WIDTH_MULTIPLE = 16


class FieldEmbedding(nn.Module):
    """One embedding table for all categorical fields, each at its offset: ids `[batch, C]` → `[batch, C, width]`."""

    offsets: Tensor

    def __init__(self, sizes: list[int], rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
        self.register_buffer("offsets", field_offsets(sizes))

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.rows(ids + self.offsets)
        return vectors


def field_offsets(sizes: list[int]) -> Tensor:
    """Return the table row at which each field begins, int64 `[C]`."""
    return torch.tensor([0, *np.cumsum(sizes)[:-1]][: len(sizes)], dtype=torch.int64)


class DCN(nn.Module):
    """Cross layers beside an MLP (`parallel`) or below it (`stacked`), on embeddings `[batch, C, width]` and raw numbers.

    The numbers come scaled, each with its missing flag, or `embedded`: a score times its field's direction, and another
    vector of the field's own where the number is missing. With `first_order`, the last number of an embedding is its
    category's own effect, which is added to the logit as it is.
    """

    def __init__(self, settings: NetworkSettings, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = RankGaussianScaler(fields, numbers)
        numeric, embeddings = len(fields.numeric), len(fields.sizes) * settings.embedding
        embeds_numbers = settings.numbers == "embedded"
        self.directions = nn.Parameter(torch.randn(2, numeric, settings.embedding) * 0.1) if embeds_numbers else None
        width = embeddings + (numeric * settings.embedding if embeds_numbers else self.scale.outputs)
        self.padding = -width % WIDTH_MULTIPLE
        width += self.padding
        #: The first columns of the layers' input, which have a gradient; what follows is data. None is all.
        self.grad_columns = None if embeds_numbers else embeddings
        self.crosses = CrossNetwork(
            LowRankCrossLayer(width, settings.cross_rank, settings.experts)
            if settings.cross_rank
            else CrossLayer(width)
            for _ in range(settings.cross_layers)
        )
        self.stacked = settings.structure == "stacked"
        self.first_order = settings.first_order > 0
        self.deep = DeepNetwork(width, settings.hidden, settings.dropout)
        self.widths = [self.deep.width] if self.stacked else [width, self.deep.width]
        self.head = nn.Linear(sum(self.widths), 1)

    def forward(self, vectors: Tensor, numbers: Tensor, dropout_bytes: Tensor | None = None) -> Tensor:
        """Return logits `[batch]`; random `dropout_bytes` `[batch, hidden units]` decide which units are dropped."""
        effects = vectors[..., -1].sum(1) if self.first_order else 0
        vectors = vectors[..., :-1] if self.first_order else vectors
        padding = numbers.new_zeros(numbers.shape[0], self.padding)
        x0 = _to_autocast_type(torch.cat([vectors.flatten(1), self._number_columns(numbers), padding], dim=1))
        x = self.crosses(x0, self.grad_columns)
        outputs = (
            [self.deep(x, dropout_bytes)] if self.stacked else [x, self.deep(x0, dropout_bytes, self.grad_columns)]
        )
        weights = torch.split(self.head.weight[0], self.widths)
        return sum((x @ weight for x, weight in zip(outputs, weights, strict=True)), self.head.bias) + effects

    def _number_columns(self, numbers: Tensor) -> Tensor:
        """Return the columns that stand for the numbers: `[batch, 2 N]`, or `[batch, N · width]` where they are embedded."""
        scaled: Tensor = self.scale(numbers)
        if self.directions is None:
            return scaled
        scores, missing = scaled.unsqueeze(-1).chunk(2, dim=1)
        return (scores * self.directions[0] + missing * self.directions[1]).flatten(1)


class Logistic(nn.Module):
    """A wide logistic regression: one weight an id (a vector of width 1), one a scaled number, one a missing flag."""

    def __init__(self, _settings: NetworkSettings, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        self.scale = RankGaussianScaler(fields, numbers)
        self.weights = nn.Parameter(torch.zeros(self.scale.outputs))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, vectors: Tensor, numbers: Tensor, _dropout_bytes: Tensor | None = None) -> Tensor:
        logits: Tensor = vectors.sum((1, 2)) + self.scale(numbers) @ self.weights + self.bias
        return logits


Tower = DCN | Logistic


class Network(nn.Module):
    """A table and its tower: ids `[batch, C]` and raw numbers `[batch, N]` → logits `[batch]`."""

    def __init__(self, table: FieldEmbedding, tower: Tower) -> None:
        super().__init__()
        self.table, self.tower = table, tower

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        logits: Tensor = self.tower(self.table(ids), numbers)
        return logits


@dataclass(frozen=True)
class NetworkType:
    """How the tower of a network is made, and how its optimizer differs from DCN-v2's."""

    tower: Callable[[NetworkSettings, Fields, NDArray[np.float32]], Tower]
    has_layers: bool  #: above the embeddings; without them there is no dropout and no linear term beside
    lr_factor: float = 1.0
    weight_decay_factor: float = 1.0


#: A wide network has no deep gradient to keep calm and its weights are its whole answer: it takes longer steps and bears
#: less decay than embeddings, whose scale the layers above make good.
NETWORKS: Mapping[NetworkName, NetworkType] = {
    "dcn": NetworkType(DCN, has_layers=True),
    "logistic": NetworkType(Logistic, has_layers=False, lr_factor=10.0, weight_decay_factor=0.01),
}


def network_type(family: FamilyName) -> NetworkType:
    """Return the type of network that the family fits. Raises ValueError where it fits none."""
    name = FAMILIES[family].network
    if name is None:
        raise ValueError(f"a {family} model has no network")
    return NETWORKS[name]


def build_tower(family: FamilyName, settings: NetworkSettings, fields: Fields, numbers: NDArray[np.float32]) -> Tower:
    """Return the family's tower with random weights; the training data's numbers `[n, N]` decide their scaling."""
    return network_type(family).tower(settings, fields, numbers)


def embedding_width(family: FamilyName, settings: NetworkSettings) -> int:
    """Return the width of a row of the embedding table, the category's own effect included."""
    return settings.embedding + (settings.first_order > 0) if network_type(family).has_layers else 1


def _to_autocast_type(x: Tensor) -> Tensor:
    """Return x in autocast's type from the start, so that the layers need not convert to and fro."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
