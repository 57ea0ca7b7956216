"""Raw numbers made fit for a network: rank-Gaussian scores and missing flags."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from include.trainer.data.dataset import Fields

#: Scores stay within the normal scores of this quantile and its mirror image (±2.05): a number outside of the training
#: data is at most as strange as the strangest in fifty.
TAIL = 0.02
#: Rows of the training data that decide the scaling; more change it by less than the knots' own width.
MAX_ROWS = 500_000


class RankGaussianScaler(nn.Module):
    """Raw numbers `[batch, N]` → rank-Gaussian scores and missing flags `[batch, 2 N]`.

    A number's rank among the training data, read at the field's knots, becomes the normal score of that rank, linear
    between the knots and constant outside; a missing number becomes 0 and raises its flag.
    """

    #: `[N, 2ᵏ]`, as are the three below: each piece's first number, ascending, its width, its slope and its first score.
    starts: Tensor
    widths: Tensor
    slopes: Tensor
    heights: Tensor

    def __init__(self, fields: Fields, numbers: NDArray[np.float32]) -> None:
        super().__init__()
        curves = [_curve(np.array(fields.knots[f]), numbers[:MAX_ROWS, i]) for i, f in enumerate(fields.numeric)]
        self.pieces = max((len(curve.widths) for curve in curves), default=1)
        length = (
            1 << (self.pieces - 1).bit_length()
        )  # a power of two, which a binary search cuts into halves to the end
        for name, padding in (("starts", np.inf), ("widths", 0), ("slopes", 0), ("heights", 0)):
            padded = [_pad(getattr(curve, name), length, padding) for curve in curves]
            self.register_buffer(name, torch.tensor(np.array(padded), dtype=torch.float32).reshape(len(curves), length))
        self.outputs = 2 * len(curves)

    def forward(self, numbers: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            missing, largest = torch.isnan(numbers), torch.finfo(numbers.dtype).max
            filled = numbers.masked_fill(missing, 0.0).clamp(-largest, largest)  # nan_to_num's graph has ten nodes more
            return torch.cat([self._scores_by_sum(filled).masked_fill(missing, 0.0), missing.float()], dim=1)
        filled, flags = torch.nan_to_num(numbers), numbers.clone().ne_(numbers)  # isnan takes longer
        pieces = self._find_pieces_on_cpu(filled) if filled.is_cpu else self._find_pieces(filled)
        return torch.cat([self._scores(filled, pieces).mul_(1 - flags), flags], dim=1)

    def _scores(self, numbers: Tensor, pieces: Tensor) -> Tensor:
        """Return the scores `[batch, N]` of numbers that lie in these pieces."""
        distance = torch.minimum(torch.relu_(numbers - _take(self.starts, pieces)), _take(self.widths, pieces))
        return torch.addcmul(_take(self.heights, pieces), distance, _take(self.slopes, pieces))

    def _find_pieces(self, numbers: Tensor) -> Tensor:
        """Return the piece of each number, int32 `[batch, N]`, counted through the pieces of all fields."""
        pieces = torch.searchsorted(self.starts, numbers.T.contiguous(), right=True) - 1
        return (pieces.clamp_(min=0).T + self._first_pieces).int().contiguous()

    def _find_pieces_on_cpu(self, numbers: Tensor) -> Tensor:
        """Return what `_find_pieces` does, in a fifth of its time: a CPU guesses a search's branches, here there are none.

        Pieces are counted in floats, which are added many at a time.
        """
        pieces, starts = self._first_pieces.float().expand_as(numbers).contiguous(), self.starts.view(-1)
        step = self.starts.shape[1] // 2
        while step:
            pieces.add_(_take(starts[step:], pieces.int()).le_(numbers), alpha=step)
            step //= 2
        return pieces.int()

    @property
    def _first_pieces(self) -> Tensor:
        """Return the number of each field's first piece, int64 `[N]`."""
        fields, length = self.starts.shape
        return torch.arange(0, fields * length, length, device=self.starts.device)

    def _scores_by_sum(self, numbers: Tensor) -> Tensor:
        """Return the scores as a sum of what each piece adds to the lowest one: ONNX has no search."""
        starts, widths, slopes = (t[:, : self.pieces] for t in (self.starts, self.widths, self.slopes))
        distances = torch.minimum(torch.relu(numbers.unsqueeze(-1) - starts), widths)
        return (distances * slopes).sum(-1) + self.heights[:, 0]


@dataclass(frozen=True)
class Curve:
    """Number → normal score in linear pieces, each array `[pieces]`; a number left of them all has the first one's height."""

    starts: NDArray[np.float64]
    widths: NDArray[np.float64]
    slopes: NDArray[np.float64]
    heights: NDArray[np.float64]


def _curve(knots: NDArray[np.float64], numbers: NDArray[np.float32]) -> Curve:
    knots = np.unique(knots.astype(np.float32)).astype(np.float64)
    ordered = np.sort(numbers[np.isfinite(numbers)])
    # Half of the ties count as below, so that a value held by most rows sits in the middle of the ranks it fills.
    below = (np.searchsorted(ordered, knots, "left") + np.searchsorted(ordered, knots, "right")) / 2
    ranks = torch.from_numpy(np.clip(below / max(len(ordered), 1), TAIL, 1 - TAIL))
    scores = torch.special.ndtri(ranks).numpy() if len(ordered) else np.zeros(len(knots))
    if len(knots) == 1:
        return Curve(knots, np.zeros(1), np.zeros(1), scores)
    widths = np.diff(knots)
    return Curve(knots[:-1], widths, np.diff(scores) / widths, scores[:-1])


def _pad(values: NDArray[np.float64], length: int, padding: float) -> NDArray[np.float64]:
    return np.pad(values, (0, length - len(values)), constant_values=padding)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return the values at these places of the flattened tensor; the index is int32 of any shape (int64 takes longer)."""
    return values.view(-1).index_select(0, index.view(-1)).view_as(index)
