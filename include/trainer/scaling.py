"""Raw numbers made fit for a model: rank-Gaussian scores, missing flags."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.trainer.dataset import Fields

#: Scaled numbers stay within the normal scores of this quantile and its mirror image (±2.05): a number never seen in
#: training is at most as strange as the strangest in fifty.
TAIL = 0.02
#: Rows of the training data that decide the scaling; more change it by less than the knots' own width.
SAMPLE = 500_000


class Scale(nn.Module):
    """Raw numbers `[batch, N]` → rank-Gaussian scores and missing flags `[batch, 2 N]`.

    A number's rank among the training data, read at the field's knots, becomes the normal score of that rank, linear
    between the knots and constant outside; a missing number becomes 0 and raises its flag.
    """

    starts: Tensor  #: `[N, pieces]`, ascending, as are `widths`, `slopes` and `heights`, the score at a piece's start
    widths: Tensor
    slopes: Tensor
    heights: Tensor

    def __init__(self, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        curves = [_curve(np.array(fields.knots[f]), numbers[:SAMPLE, i]) for i, f in enumerate(fields.numeric)]
        pieces = max((len(curve.widths) for curve in curves), default=1)
        for name, beyond in (("starts", np.inf), ("widths", 0), ("slopes", 0), ("heights", 0)):
            padded = [_padded(getattr(curve, name), pieces, beyond) for curve in curves]
            self.register_buffer(name, torch.tensor(np.array(padded), dtype=torch.float32).reshape(len(curves), pieces))
        self.outputs = 2 * len(curves)

    def forward(self, numbers: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            missing, most = torch.isnan(numbers), torch.finfo(numbers.dtype).max
            known = numbers.masked_fill(missing, 0.0).clamp(-most, most)  # nan_to_num's graph has ten nodes more
            return torch.cat([self._summed(known).masked_fill(missing, 0.0), missing.float()], dim=1)
        columns = numbers.T.contiguous()
        flags = torch.isnan(columns).float()
        return torch.cat([self._searched(torch.nan_to_num(columns)) * (1 - flags), flags]).T.contiguous()

    def _searched(self, columns: Tensor) -> Tensor:
        """The score within the piece that a binary search finds; `columns` is `[N, batch]`."""
        fields, pieces = self.starts.shape
        first = torch.arange(0, fields * pieces, pieces, device=columns.device).unsqueeze(1)
        if columns.is_cpu:
            place = self._halved(columns, first.float())
        else:
            found = torch.searchsorted(self.starts, columns, right=True) - 1
            place = (first + found.clamp_(min=0)).int()
        inside = torch.minimum(torch.relu_(columns - _at(self.starts, place)), _at(self.widths, place))
        return torch.addcmul(_at(self.heights, place), inside, _at(self.slopes, place))

    def _halved(self, columns: Tensor, first: Tensor) -> Tensor:
        """What torch.searchsorted finds, in a quarter of its time: a processor guesses its branches, here there are none.

        Places count through the pieces of all fields; they are floats, which are added many at a time.
        """
        pieces = self.starts.shape[1]
        place, last = first.expand_as(columns).contiguous(), first + (pieces - 1)
        for power in range((pieces - 1).bit_length())[::-1]:
            ahead = (place + 2**power).clamp_(max=last)
            place.add_(_at(self.starts, ahead.int()).le_(columns), alpha=2**power)
        return place.clamp_(max=last).int()

    def _summed(self, numbers: Tensor) -> Tensor:
        """The same as what each piece adds to the lowest score: ONNX knows no search."""
        inside = torch.minimum(torch.relu(numbers.unsqueeze(-1) - self.starts), self.widths)
        return (inside * self.slopes).sum(-1) + self.heights[:, 0]


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


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Of the values `[N, pieces]`, counted through, those at these places, int32 of any shape (int64 takes longer)."""
    return values.view(-1).index_select(0, places.view(-1)).view_as(places)
