"""AdamW for the embedding table, with decay and a moving average, as if every row moved in every step, at the cost of the
rows that a batch holds.

A row has one second moment v (`exp_avg_sq`), the moving average of its mean squared gradient, instead of one a column: a
table of 16 columns is then a quarter smaller with all its state, and learns no worse (docs/training.md).

A row that a batch does not hold has no gradient, and what a step then does to it is linear in what it was: with s the last
step that moved it, u = exp_avg/(√v + ε') at s and γ = β₁/√β₂, step k does
p ← decay_factor_k p - step_size_k bias_correction_k γ^(k-s) u. So after any number of such steps p = A p_s - B u and its
average is K ema_s + C p_s - D u, where A to D are plain numbers that depend on s and the present step alone. `SkippedSteps`
holds them for every s; a row is brought up to date when it is read. Only ε, which these steps let fade with √v, is not
exactly as in the dense algorithm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from include.trainer.job import derive_seed
from include.trainer.optim.linear_term import LinearTerm, LinearTermPrior
from include.trainer.optim.schedule import BETAS, EPS, StepSchedule

#: Rows worked on together where all are.
CHUNK_ROWS = 1 << 14
#: Steps after which every row is brought up to date, so that `SkippedSteps` stays short.
MAX_SKIPPED_STEPS = 8192
INITIAL_STD = 0.01


class SkippedSteps:
    """The factors A, B, K, C, D of rows last up to date after s steps, for every s from `base` to `now`."""

    def __init__(self, schedule: StepSchedule) -> None:
        self.schedule = schedule
        self.gamma_powers = (BETAS[0] / BETAS[1] ** 0.5) ** np.arange(MAX_SKIPPED_STEPS + 2)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin anew with all rows up to date after `step` steps."""
        self.base = self.now = step
        self.factors = np.zeros((5, MAX_SKIPPED_STEPS + 1))
        self.factors[[0, 2], 0] = 1.0

    def add_step(self) -> None:
        """Count one more step, which every s up to now has skipped."""
        coefficients, age = self.schedule.coefficients(self.now), self.now - self.base + 1
        weight, lead, _, ema_of_weight, ema_of_lead = self.factors[:, :age]
        weight *= coefficients.decay_factor
        lead *= coefficients.decay_factor
        lead += coefficients.step_size * coefficients.bias_correction * self.gamma_powers[age:0:-1]
        self.factors[2:, :age] *= coefficients.ema_decay
        ema_of_weight += (1 - coefficients.ema_decay) * weight
        ema_of_lead += (1 - coefficients.ema_decay) * lead
        self.factors[[0, 2], age] = 1.0
        self.now += 1

    def factors_of(self, last_step: Tensor) -> tuple[Tensor, ...]:
        """Return A, B, K, C, D, each `[n, 1]`, of rows that were up to date after `last_step` steps, int32 `[n]`."""
        factors = np.ascontiguousarray(self.factors[:, : self.now - self.base + 1].T, dtype=np.float32)
        rows = torch.from_numpy(factors).to(last_step.device).index_select(0, last_step - self.base)
        return rows.unsqueeze(-1).unbind(1)


@dataclass(frozen=True)
class UniqueRows:
    """The row ids of a batch `[n, C]`, each one once."""

    row_ids: Tensor  #: `[m]`, ascending
    inverse: Tensor  #: `[n, C]`, the place in `row_ids` of each of the batch's
    order: Tensor  #: `[n · C]`, which brings equal ones of the batch's together
    offsets: Tensor  #: `[m + 1]`, where each row's ones begin in that order, and where the last one's end

    @classmethod
    def of(cls, row_ids: Tensor) -> "UniqueRows":
        """Return the unique rows of a batch of row ids `[n, C]`."""
        ordered, order = _sort(row_ids.flatten())
        unique, inverse, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        inverse = torch.empty_like(order).scatter_(0, order, inverse)
        return cls(unique, inverse.view(row_ids.shape), order, functional.pad(counts.cumsum(0), (1, 0)))

    def sum_by_row(self, values: Tensor, span: slice | None = None) -> Tensor:
        """Return values `[n · C, width]` summed by row, `[m, width]`, or those of a span of the rows."""
        start, stop = (span.start, span.stop) if span else (0, len(self.row_ids))
        if start == stop:
            return values[:0]
        offsets, order = self.offsets[start : stop + 1], self.order
        if stop - start < len(self.row_ids):  # else a GPU would be waited for
            order, offsets = order[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0]
        return functional.embedding_bag(order, values, offsets, mode="sum", include_last_offset=True)


class RowState(NamedTuple):
    """Some rows and their state, up to date; `row_ids` are local."""

    row_ids: Tensor  #: `[n]`
    weight: Tensor  #: `[n, width]`
    exp_avg: Tensor  #: `[n, width]`
    exp_avg_sq: Tensor  #: `[n, 1]`
    ema: Tensor  #: `[n, width]`


class LazyAdamW:
    """Every `stride`-th of the table's `rows` rows from row `first` on, with their state. Their ids are local, from 0 on.

    With a prior, a row's last number is its linear term, which moves as `linear_term.py` says.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        schedule: StepSchedule,
        seed: int,
        device: torch.device,
        first: int = 0,
        stride: int = 1,
        prior: LinearTermPrior | None = None,
    ) -> None:
        self.rows, self.first, self.stride = rows, first, stride
        own = len(range(first, rows, stride))
        self.linear_term = LinearTerm(own, prior, device) if prior else None
        self.weight_and_exp_avg = torch.zeros(
            own, 2, width, device=device
        )  #: in one tensor, since they are read together
        self.exp_avg_sq, self.ema = torch.zeros(own, 1, device=device), torch.zeros(own, width, device=device)
        self.last_step = torch.zeros(own, dtype=torch.int32, device=device)  #: steps that each row has behind it
        self.skipped = SkippedSteps(schedule)
        self._initialise(seed)

    @property
    def weight(self) -> Tensor:
        """The weights `[rows, width]`."""
        return self.weight_and_exp_avg[:, 0]

    @property
    def exp_avg(self) -> Tensor:
        """The moving averages of the gradients, `[rows, width]`."""
        return self.weight_and_exp_avg[:, 1]

    def read(self, row_ids: Tensor) -> RowState:
        """Return these rows `[n]` as the steps since their last one have left them."""
        last_step, exp_avg_sq = self.last_step.index_select(0, row_ids), self.exp_avg_sq.index_select(0, row_ids)
        weight, exp_avg = (stored := self.weight_and_exp_avg.index_select(0, row_ids)).unbind(1)
        a, b, k, c, d = self.skipped.factors_of(last_step)
        # With the ε of AdamW's step `last_step`, whose root of v is one divided by its bias correction.
        bias_correction = (1 - BETAS[1] ** last_step.clamp(min=1)).sqrt().unsqueeze(1)
        inverse = 1 / (exp_avg_sq.sqrt() + bias_correction * EPS)
        ema = torch.addcmul(k * self.ema.index_select(0, row_ids), c, weight)
        ema.addcmul_(d * inverse, exp_avg, value=-1)
        steps = (self.skipped.now - last_step).unsqueeze(1)
        weight = torch.addcmul(a * weight, b * inverse, exp_avg, value=-1)
        if self.linear_term:
            weight[:, -1] = ema[:, -1] = stored[:, 0, -1]
        return RowState(row_ids, weight, exp_avg * BETAS[0] ** steps, exp_avg_sq * BETAS[1] ** steps, ema)

    def update(self, state: RowState, gradients: Tensor) -> None:
        """Take the next step on rows with gradients `[n, width]`, each row in one call alone; `finish_step` ends the step.

        With a linear term the gradients are `[n, width + 1]`, the last the information about the effect.
        """
        coefficients = self.skipped.schedule.coefficients(self.skipped.now)
        _, weight, exp_avg, exp_avg_sq, ema = state
        if self.linear_term:
            *_, gradient, information = gradients.unbind(1)
            effects = self.linear_term.update(state.row_ids, weight[:, -1], gradient, information)
            gradients = functional.pad(gradients[:, :-2], (0, 1))
        exp_avg.lerp_(gradients, 1 - BETAS[0])
        exp_avg_sq.mul_(BETAS[1]).add_(gradients.square().mean(1, keepdim=True), alpha=1 - BETAS[1])
        denominator = exp_avg_sq.sqrt().div_(coefficients.bias_correction).add_(EPS)
        weight.mul_(coefficients.decay_factor).addcdiv_(exp_avg, denominator, value=-coefficients.step_size)
        ema.lerp_(weight, 1 - coefficients.ema_decay)
        if self.linear_term:
            weight[:, -1] = ema[:, -1] = effects
        self._write(state, self.skipped.now + 1)

    def finish_step(self) -> None:
        """End a step in which all rows that have a gradient have been updated."""
        self.skipped.add_step()
        if self.skipped.now - self.skipped.base == MAX_SKIPPED_STEPS:
            self.apply_pending_updates()

    def apply_pending_updates(self) -> None:
        """Bring every row up to date."""
        for start in range(0, len(self.last_step), CHUNK_ROWS):
            row_ids = torch.arange(start, min(start + CHUNK_ROWS, len(self.last_step)), device=self.last_step.device)
            self._write(self.read(row_ids), self.skipped.now)
        self.skipped.restart(self.skipped.now)

    def resume(self, step: int) -> None:
        """Go on after `step` steps, with a state that was loaded."""
        self.skipped.restart(step // MAX_SKIPPED_STEPS * MAX_SKIPPED_STEPS)
        for _ in range(step % MAX_SKIPPED_STEPS):
            self.skipped.add_step()

    def restart_average(self) -> None:
        """Set the moving average to the weights."""
        self.ema.copy_(self.weight)

    def release_memory(self) -> None:
        """Drop weights and averages, after which no step may follow."""
        self.weight_and_exp_avg, self.ema = torch.empty(0, 2, 0), torch.empty(0)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all that a step changes, by its name in a checkpoint."""
        yield "weight", self.weight
        yield "first", self.exp_avg
        yield "second", self.exp_avg_sq
        yield "mean", self.ema
        yield "last", self.last_step
        if self.linear_term:
            yield "told", self.linear_term.information

    def _initialise(self, seed: int) -> None:
        """Draw the weights, for the whole table in chunks, so that every share of it begins as the whole does."""
        width = self.weight.shape[1]
        for chunk, start in enumerate(range(0, self.rows, CHUNK_ROWS)):
            generator = torch.Generator().manual_seed(derive_seed(seed, chunk))
            drawn = torch.randn(min(CHUNK_ROWS, self.rows - start), width, generator=generator) * INITIAL_STD
            own = drawn[(self.first - start) % self.stride :: self.stride]
            place = -(-(start - self.first) // self.stride)
            self.weight[place : place + len(own)] = own.to(self.weight.device)
        if self.linear_term:
            self.weight[:, -1] = 0
        self.restart_average()

    def _write(self, state: RowState, steps: int) -> None:
        row_ids, weight, exp_avg, exp_avg_sq, ema = state
        self.weight_and_exp_avg.index_copy_(0, row_ids, torch.stack([weight, exp_avg], dim=1))
        self.ema.index_copy_(0, row_ids, ema)
        self.exp_avg_sq.index_copy_(0, row_ids, exp_avg_sq)
        self.last_step.index_fill_(0, row_ids, steps)


def _sort(row_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return row ids `[n]` in order and the place that each came from, int64 `[n]`; equal ones stay in their order."""
    if not row_ids.is_cpu:
        ordered, order = torch.sort(row_ids, stable=True)
        return ordered, order
    # NumPy sorts 16 bits at a time by their value alone, 28,000 numbers in a twentieth of torch's time.
    values, places = row_ids.numpy(), np.arange(len(row_ids))
    for shift in range(0, int(row_ids.max()).bit_length() if len(row_ids) else 0, 16):
        places = places[np.argsort((values[places] >> shift).astype(np.uint16), kind="stable")]
    return torch.from_numpy(values[places]), torch.from_numpy(places)
