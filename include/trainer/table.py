"""The rows of the embedding table and how they move: AdamW with decay and a running mean, as if every row moved in every
step, at the cost of the rows that a batch holds.

A row that a batch does not hold has no gradient, and what a step then does to it is linear in what it was: with s the last
step that saw it, u = m/(√v + ε') at s and γ = β₁/√β₂, step k does p ← keep_k p - size_k correction_k γ^(k-s) u. So after any
number of such steps p = A p_s - B u and its mean is K mean_s + C p_s - D u, where A to D are plain numbers that depend on s
and the present step alone. `Idle` keeps them for every s; a row is brought up to date when it is wanted. Only ε, which
these steps let fade with √v, is not exactly as in the dense algorithm.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from include.trainer import order
from include.trainer.schedule import BETAS, EPSILON, Schedule

#: Rows worked on together where all are.
CHUNK = 1 << 16
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

    def of(self, last: Tensor) -> Tensor:
        """`[5, n, 1]` for rows that were up to date after `last` steps, int32 `[n]`."""
        present = torch.from_numpy(self.factors[:, : self.now - self.base + 1].astype(np.float32)).to(last.device)
        return present[:, last.long() - self.base].unsqueeze(-1)


@dataclass(frozen=True)
class Grouped:
    """Row numbers `[n]`, each one once in `rows` `[m]`; `place` `[n]` says where."""

    rows: Tensor
    place: Tensor
    order: Tensor
    starts: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> "Grouped":
        ordered, order = torch.sort(numbers, stable=True)
        rows, places, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        place = torch.empty_like(order).scatter_(0, order, places)
        return cls(rows, place, order, counts.cumsum(0) - counts)

    def sums(self, values: Tensor) -> Tensor:
        """`[n, width]` summed by row, `[m, width]`."""
        if not len(values):
            return values
        return functional.embedding_bag(self.order, values, self.starts, mode="sum")


class Rows:
    """Every `stride`-th of `count` rows from `row` on, with their moments and means; row numbers are local."""

    def __init__(
        self, count: int, width: int, schedule: Schedule, seed: int,
        device: torch.device, row: int = 0, stride: int = 1,
    ) -> None:  # fmt: skip
        own = len(range(row, count, stride))
        self.count, self.row, self.stride = count, row, stride
        self.weight, self.first, self.second, self.mean = (torch.zeros(own, width, device=device) for _ in range(4))
        self.last = torch.zeros(own, dtype=torch.int32, device=device)  #: steps that a row has behind it
        self.idle = Idle(schedule)
        for chunk, start in enumerate(range(0, count, CHUNK)):
            source = torch.Generator().manual_seed(order.seed(seed, chunk))
            drawn = torch.randn(min(CHUNK, count - start), width, generator=source) * SPREAD
            at, drawn = -(-(start - row) // stride), drawn[(row - start) % stride :: stride]
            self.weight[at : at + len(drawn)] = drawn.to(device)
        self.mean.copy_(self.weight)

    def read(self, rows: Tensor, *, averaged: bool = False) -> Tensor:
        """The rows' weights as they stand now, or their means, `[n, width]`."""
        last = self.last[rows]
        weight, lead, mean, mean_of_weight, mean_of_lead = self.idle.of(last)
        direction = self._direction(self.first[rows], self.second[rows], last)
        present: Tensor = weight * self.weight[rows] - lead * direction
        if averaged:
            present = mean * self.mean[rows] + mean_of_weight * self.weight[rows] - mean_of_lead * direction
        return present

    def step(self, rows: Tensor, gradients: Tensor) -> None:
        """The next step: the gradient of these rows, each named once, and none of all others."""
        pace = self.idle.schedule.pace(self.idle.now)
        weight, first, second, mean = self._settled(rows)
        first.lerp_(gradients, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        weight.mul_(pace.keep).addcdiv_(first, second.sqrt().div_(pace.correction).add_(EPSILON), value=-pace.size)
        mean.lerp_(weight, 1 - pace.kept)
        self.idle.pass_step()
        self._put(rows, (weight, first, second, mean))
        if self.idle.now - self.idle.base == HORIZON:
            self.settle()

    def settle(self) -> None:
        """Bring every row up to date."""
        for start in range(0, len(self.last), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self.last)), device=self.last.device)
            self._put(rows, self._settled(rows))
        self.idle.restart(self.idle.now)

    def resume(self, step: int) -> None:
        """The state is that after `step` steps."""
        self.idle.restart(step // HORIZON * HORIZON)
        for _ in range(step % HORIZON):
            self.idle.pass_step()

    def forget(self) -> None:
        """Give back the memory of all that only another step would want."""
        self.weight, self.first, self.second, self.mean = (torch.empty(0) for _ in range(4))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that a step changes, by name."""
        for name in ("weight", "first", "second", "mean", "last"):
            yield name, getattr(self, name)

    def _settled(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight, first and second moment and mean as the steps since the last one left them."""
        last, weight, first, second = self.last[rows], self.weight[rows], self.first[rows], self.second[rows]
        factor, direction = self.idle.of(last), self._direction(first, second, last)
        mean = factor[2] * self.mean[rows] + factor[3] * weight - factor[4] * direction
        steps = (self.idle.now - last).unsqueeze(1)
        return factor[0] * weight - factor[1] * direction, first * BETAS[0] ** steps, second * BETAS[1] ** steps, mean

    def _put(self, rows: Tensor, values: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        for held, value in zip((self.weight, self.first, self.second, self.mean), values, strict=True):
            held[rows] = value
        self.last[rows] = self.idle.now

    @staticmethod
    def _direction(first: Tensor, second: Tensor, last: Tensor) -> Tensor:
        """u, with the ε of AdamW's step `last`, whose root of v is one divided by its correction."""
        correction = (1 - BETAS[1] ** last.clamp(min=1)).sqrt().unsqueeze(1)
        return first / torch.addcmul(second.sqrt(), correction, correction.new_tensor(EPSILON))
