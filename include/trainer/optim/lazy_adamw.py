"""The rows of the embedding table and how they move: AdamW with decay and a running mean, as if every row moved in every
step, at the cost of the rows that a batch holds.

A row has one second moment v, the mean of its squared gradients' one for each number of it: a table of 16 columns is then a
quarter smaller with all that moves it, and learns no worse (docs/training.md).

A row that a batch does not hold has no gradient, and what a step then does to it is linear in what it was: with s the last
step that saw it, u = m/(√v + ε') at s and γ = β₁/√β₂, step k does p ← keep_k p - size_k correction_k γ^(k-s) u. So after any
number of such steps p = A p_s - B u and its mean is K mean_s + C p_s - D u, where A to D are plain numbers that depend on s
and the present step alone. `Idle` keeps them for every s; a row is brought up to date when it is wanted. Only ε, which
these steps let fade with √v, is not exactly as in the dense algorithm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from include.trainer.job import derive_seed
from include.trainer.optim.linear_term import Effects, Prior
from include.trainer.optim.schedule import BETAS, EPSILON, Schedule

#: Rows worked on together where all are.
CHUNK = 1 << 14
#: Steps after which every row is brought up to date, so that `Idle` stays short.
HORIZON = 8192
SPREAD = 0.01  #: of the first weights


class Idle:
    """The factors A, B, K, C, D of rows last up to date after s steps, for every s from `base` to now."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.fading = (BETAS[0] / BETAS[1] ** 0.5) ** np.arange(HORIZON + 2)
        self.restart(0)

    def restart(self, step: int) -> None:
        """All rows are up to date after `step` steps."""
        self.base = self.now = step
        self.factors = np.zeros((5, HORIZON + 1))
        self.factors[[0, 2], 0] = 1.0

    def pass_step(self) -> None:
        """One more step is over."""
        pace, age = self.schedule.pace(self.now), self.now - self.base + 1
        weight, lead, _, mean_of_weight, mean_of_lead = self.factors[:, :age]
        weight *= pace.keep
        lead *= pace.keep
        lead += pace.size * pace.correction * self.fading[age:0:-1]
        self.factors[2:, :age] *= pace.kept
        mean_of_weight += (1 - pace.kept) * weight
        mean_of_lead += (1 - pace.kept) * lead
        self.factors[[0, 2], age] = 1.0
        self.now += 1

    def of(self, last: Tensor) -> tuple[Tensor, ...]:
        """Each factor, `[n, 1]`, of rows that were up to date after `last` steps, int32 `[n]`."""
        present = np.ascontiguousarray(self.factors[:, : self.now - self.base + 1].T, dtype=np.float32)
        return torch.from_numpy(present).to(last.device).index_select(0, last - self.base).unsqueeze(-1).unbind(1)


@dataclass(frozen=True)
class Grouped:
    """The row numbers of a batch, each one once."""

    rows: Tensor  #: `[m]`
    place: Tensor  #: of each of the batch's `[n, C]` in `rows`
    order: Tensor  #: of the batch's, that brings equal ones together
    starts: Tensor  #: of each row's in that order, and where the last one's end, `[m + 1]`

    @classmethod
    def of(cls, numbers: Tensor) -> "Grouped":
        ordered, order = _sorted(numbers.flatten())
        rows, places, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        place = torch.empty_like(order).scatter_(0, order, places)
        return cls(rows, place.view(numbers.shape), order, functional.pad(counts.cumsum(0), (1, 0)))

    def sums(self, values: Tensor, span: slice | None = None) -> Tensor:
        """`[n · C, width]` summed by row, `[m, width]`, or a span of these."""
        first, end = (span.start, span.stop) if span else (0, len(self.rows))
        if first == end:
            return values[:0]
        starts, order = self.starts[first : end + 1], self.order
        if end - first < len(self.rows):  # else a GPU would be waited for
            order, starts = order[int(starts[0]) : int(starts[-1])], starts - starts[0]
        return functional.embedding_bag(order, values, starts, mode="sum", include_last_offset=True)


class Settled(NamedTuple):
    """Some rows `[n]` and their state, up to date: weights, first moments and means `[n, width]`, second moments `[n, 1]`."""

    rows: Tensor
    weight: Tensor
    first: Tensor
    second: Tensor
    mean: Tensor


class Rows:
    """Every `stride`-th of `count` rows from `row` on, with their moments and means; row numbers are local.

    With a prior, a row's last number is its effect, which moves as `optim/linear_term.py` says.
    """

    def __init__(
        self, count: int, width: int, schedule: Schedule, seed: int, device: torch.device,
        row: int = 0, stride: int = 1, prior: Prior | None = None,
    ) -> None:  # fmt: skip
        own = len(range(row, count, stride))
        self.effects = Effects(own, prior, device) if prior else None
        self.count, self.row, self.stride = count, row, stride
        self.moving = torch.zeros(own, 2, width, device=device)  #: weights and first moments, wanted together
        self.mean, self.second = torch.zeros(own, width, device=device), torch.zeros(own, 1, device=device)
        self.last = torch.zeros(own, dtype=torch.int32, device=device)  #: steps that a row has behind it
        self.idle = Idle(schedule)
        for chunk, start in enumerate(range(0, count, CHUNK)):
            source = torch.Generator().manual_seed(derive_seed(seed, chunk))
            drawn = torch.randn(min(CHUNK, count - start), width, generator=source) * SPREAD
            at, drawn = -(-(start - row) // stride), drawn[(row - start) % stride :: stride]
            self.weight[at : at + len(drawn)] = drawn.to(device)
        if self.effects:
            self.weight[:, -1] = 0
        self.mean.copy_(self.weight)

    @property
    def weight(self) -> Tensor:
        return self.moving[:, 0]

    @property
    def first(self) -> Tensor:
        return self.moving[:, 1]

    def take(self, rows: Tensor) -> Settled:
        """These rows as the steps since their last one have left them."""
        last, second = self.last.index_select(0, rows), self.second.index_select(0, rows)
        weight, first = (held := self.moving.index_select(0, rows)).unbind(1)
        keep, lead, kept, mean_of_weight, mean_of_lead = self.idle.of(last)
        # With the ε of AdamW's step `last`, whose root of v is one divided by its correction.
        correction = (1 - BETAS[1] ** last.clamp(min=1)).sqrt().unsqueeze(1)
        inverse = 1 / (second.sqrt() + correction * EPSILON)
        mean = torch.addcmul(kept * self.mean.index_select(0, rows), mean_of_weight, weight)
        mean.addcmul_(mean_of_lead * inverse, first, value=-1)
        steps = (self.idle.now - last).unsqueeze(1)
        weight = torch.addcmul(keep * weight, lead * inverse, first, value=-1)
        if self.effects:
            weight[:, -1] = mean[:, -1] = held[:, 0, -1]
        return Settled(rows, weight, first * BETAS[0] ** steps, second * BETAS[1] ** steps, mean)

    def move(self, taken: Settled, gradients: Tensor) -> None:
        """Of the next step, what it does to rows that have a gradient, each named once in all calls; `pass_step` ends it.

        With effects a gradient has one number more, what the batch tells of the effect.
        """
        pace, (_, weight, first, second, mean) = self.idle.schedule.pace(self.idle.now), taken
        if self.effects:
            *_, own, told = gradients.unbind(1)
            effect = self.effects.moved(taken.rows, weight[:, -1], own, told)
            gradients = functional.pad(gradients[:, :-2], (0, 1))
        first.lerp_(gradients, 1 - BETAS[0])
        second.mul_(BETAS[1]).add_(gradients.square().mean(1, keepdim=True), alpha=1 - BETAS[1])
        weight.mul_(pace.keep).addcdiv_(first, second.sqrt().div_(pace.correction).add_(EPSILON), value=-pace.size)
        mean.lerp_(weight, 1 - pace.kept)
        if self.effects:
            weight[:, -1] = mean[:, -1] = effect
        self._put(Settled(taken.rows, weight, first, second, mean), self.idle.now + 1)

    def pass_step(self) -> None:
        """All rows that have a gradient in this step have moved."""
        self.idle.pass_step()
        if self.idle.now - self.idle.base == HORIZON:
            self.settle()

    def settle(self) -> None:
        """Bring every row up to date."""
        for start in range(0, len(self.last), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self.last)), device=self.last.device)
            self._put(self.take(rows), self.idle.now)
        self.idle.restart(self.idle.now)

    def resume(self, step: int) -> None:
        """The state is that after `step` steps."""
        self.idle.restart(step // HORIZON * HORIZON)
        for _ in range(step % HORIZON):
            self.idle.pass_step()

    def forget(self) -> None:
        """Give back the memory of all that only another step would want."""
        self.moving, self.mean = torch.empty(0, 2, 0), torch.empty(0)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that a step changes, by name."""
        for name in ("weight", "first", "second", "mean", "last"):
            yield name, getattr(self, name)
        if self.effects:
            yield "told", self.effects.told

    def _put(self, settled: Settled, steps: int) -> None:
        rows, weight, first, second, mean = settled
        self.moving.index_copy_(0, rows, torch.stack([weight, first], dim=1))
        self.mean.index_copy_(0, rows, mean)
        self.second.index_copy_(0, rows, second)
        self.last.index_fill_(0, rows, steps)


def _sorted(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers `[n]` in order, and where each one was, int64; equal ones as they come."""
    if not numbers.is_cpu:
        values, places = torch.sort(numbers, stable=True)
        return values, places
    # NumPy sorts 16 bits at a time by their value alone, 28,000 numbers in a twentieth of torch's time.
    digits, order = numbers.numpy(), np.arange(len(numbers))
    for shift in range(0, int(numbers.max()).bit_length() if len(numbers) else 0, 16):
        order = order[np.argsort((digits[order] >> shift).astype(np.uint16), kind="stable")]
    return torch.from_numpy(digits[order]), torch.from_numpy(order)
