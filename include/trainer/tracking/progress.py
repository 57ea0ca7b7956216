"""How far training is and how fast: a line for the launcher's log now and then, the same numbers for MLflow."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from include.trainer.tracking.gpu import Gpu
from include.trainer.tracking.tracker import Tracker

T = TypeVar("T")

SECONDS = 2.0  #: between lines


class Progress:
    def __init__(self, tracker: Tracker, epochs: int, per_epoch: int, done: int, gpu: Gpu | None) -> None:
        self.tracker, self.epochs, self.per_epoch, self.step, self.gpu = tracker, epochs, per_epoch, done, gpu
        self.samples = 0
        self.seconds = 0.0  #: of training steps since the start, to the last line
        self.measured_for = self.waited = 0.0
        self.began = self.told = time.monotonic()

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time in which none was ready is noted."""
        asked = time.monotonic()
        for batch in batches:
            self.waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def after(self, step: int, samples: int, loss: Tensor) -> None:
        """A step by so many samples: say so every two seconds and at the end of an epoch."""
        self.step = step
        self.samples += samples
        if time.monotonic() - self.told < SECONDS and step % self.per_epoch:
            return
        value, total = loss.item(), self.epochs * self.per_epoch  # waits for a GPU
        self.told = time.monotonic()
        self.seconds = self.told - self.began - self.measured_for
        speed = self.samples_per_second
        self.tracker.say(f"{self._epoch} step {step}/{total} loss {value:.4f} samples/s {speed:,.0f}")
        self.tracker.metrics(
            {"loss": value, "samples_per_second": speed, **(self.gpu.look() if self.gpu else {})}, step
        )

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """What is done here is no training."""
        began = time.monotonic()
        yield
        self.measured_for += time.monotonic() - began

    def measured(self, values: Mapping[str, float]) -> None:
        """The validate windows' metrics after an epoch."""
        self.tracker.say(f"{self._epoch} validate {' '.join(f'{k} {v:.4f}' for k, v in values.items())}")
        self.tracker.metrics({f"validate_{k}": v for k, v in values.items()}, self.step)

    def ended(self) -> None:
        """Say what the GPU's use leaves to wish for."""
        for warning in self.gpu.warnings(self.waited / max(self.seconds, 1e-9)) if self.gpu else ():
            self.tracker.say(warning)

    @property
    def samples_per_second(self) -> float:
        return self.samples / max(self.seconds, 1e-9)

    @property
    def _epoch(self) -> str:
        return f"epoch {-(-self.step // self.per_epoch)}/{self.epochs}"
