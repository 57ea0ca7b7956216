"""Raw numbers made fit for a model: rank-Gaussian scores, missing flags."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.trainer.data.dataset import Fields

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

    starts: Tensor  #: `[N, 2ᵏ]`, ascending, as are `widths`, `slopes` and `heights`, the score at a piece's start
    widths: Tensor
    slopes: Tensor
    heights: Tensor

    def __init__(self, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        curves = [_curve(np.array(fields.knots[f]), numbers[:SAMPLE, i]) for i, f in enumerate(fields.numeric)]
        self.pieces = max((len(curve.widths) for curve in curves), default=1)
        room = 1 << (self.pieces - 1).bit_length()  # so that a search by halves ends where it must
        for name, beyond in (("starts", np.inf), ("widths", 0), ("slopes", 0), ("heights", 0)):
            padded = [_padded(getattr(curve, name), room, beyond) for curve in curves]
            self.register_buffer(name, torch.tensor(np.array(padded), dtype=torch.float32).reshape(len(curves), room))
        self.outputs = 2 * len(curves)

    def forward(self, numbers: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            missing, most = torch.isnan(numbers), torch.finfo(numbers.dtype).max
            known = numbers.masked_fill(missing, 0.0).clamp(-most, most)  # nan_to_num's graph has ten nodes more
            return torch.cat([self._summed(known).masked_fill(missing, 0.0), missing.float()], dim=1)
        known, flags = torch.nan_to_num(numbers), numbers.clone().ne_(numbers)  # isnan takes longer
        place = self._halved(known) if known.is_cpu else self._found(known)
        return torch.cat([self._scored(known, place).mul_(1 - flags), flags], dim=1)

    def _scored(self, numbers: Tensor, place: Tensor) -> Tensor:
        """The score within the piece that a binary search has found."""
        inside = torch.minimum(torch.relu_(numbers - _at(self.starts, place)), _at(self.widths, place))
        return torch.addcmul(_at(self.heights, place), inside, _at(self.slopes, place))

    def _found(self, numbers: Tensor) -> Tensor:
        found = torch.searchsorted(self.starts, numbers.T.contiguous(), right=True) - 1
        return (found.clamp_(min=0).T + self._firsts).int().contiguous()

    def _halved(self, numbers: Tensor) -> Tensor:
        """The same as `_found`, in a fifth of its time: a processor guesses a search's branches, here there are none.

        Places count through the pieces of all fields; they are floats, which are added many at a time.
        """
        place, starts = self._firsts.float().expand_as(numbers).contiguous(), self.starts.view(-1)
        step = self.starts.shape[1] // 2
        while step:
            place.add_(_at(starts[step:], place.int()).le_(numbers), alpha=step)
            step //= 2
        return place.int()

    @property
    def _firsts(self) -> Tensor:
        """Where each field's pieces begin, int64 `[N]`."""
        fields, room = self.starts.shape
        return torch.arange(0, fields * room, room, device=self.starts.device)

    def _summed(self, numbers: Tensor) -> Tensor:
        """The same as what each piece adds to the lowest score: ONNX knows no search."""
        starts, widths, slopes = (t[:, : self.pieces] for t in (self.starts, self.widths, self.slopes))
        inside = torch.minimum(torch.relu(numbers.unsqueeze(-1) - starts), widths)
        return (inside * slopes).sum(-1) + self.heights[:, 0]


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
    """Of the values, counted through, those at these places, int32 of any shape (int64 takes longer)."""
    return values.view(-1).index_select(0, places.view(-1)).view_as(places)
