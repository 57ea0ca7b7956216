"""How far training is and how fast: a line for the launcher's log now and then, the same numbers for MLflow."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from include.trainer.tracking.gpu import Gpu
from include.trainer.tracking.tracker import Tracker

T = TypeVar("T")

LOG_INTERVAL = 2.0  #: seconds


class Progress:
    """The steps, samples and seconds of one training; `step` counts from its very start, the others from this process's."""

    def __init__(self, tracker: Tracker, epochs: int, steps_per_epoch: int, first_step: int, gpu: Gpu | None) -> None:
        self.tracker, self.epochs, self.steps_per_epoch, self.gpu = tracker, epochs, steps_per_epoch, gpu
        self.step, self.samples = first_step, 0
        self.seconds = 0.0  #: of training steps, up to the last line
        self.seconds_paused = self.seconds_waited = 0.0
        self.started_at = self.logged_at = time.monotonic()

    def time_waits(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the same batches, and add up the time in which none was ready."""
        wait_start = time.monotonic()
        for batch in batches:
            self.seconds_waited += time.monotonic() - wait_start
            yield batch
            wait_start = time.monotonic()

    def after_step(self, step: int, samples: int, loss: Tensor) -> None:
        """Count a step and its samples; log them every two seconds and at the end of an epoch."""
        self.step = step
        self.samples += samples
        if time.monotonic() - self.logged_at < LOG_INTERVAL and step % self.steps_per_epoch:
            return
        value, total = loss.item(), self.epochs * self.steps_per_epoch  # waits for a GPU
        self.logged_at = time.monotonic()
        self.seconds = self.logged_at - self.started_at - self.seconds_paused
        speed = self.samples_per_second
        self.tracker.log(f"{self._epoch} step {step}/{total} loss {value:.4f} samples/s {speed:,.0f}")
        system = self.gpu.sample() if self.gpu else {}
        self.tracker.log_metrics({"loss": value, "samples_per_second": speed, **system}, step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of what is done here out of the training's seconds."""
        pause_start = time.monotonic()
        yield
        self.seconds_paused += time.monotonic() - pause_start

    def after_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log the metrics of the validate windows."""
        self.tracker.log(f"{self._epoch} validate {' '.join(f'{k} {v:.4f}' for k, v in metrics.items())}")
        self.tracker.log_metrics({f"validate_{k}": v for k, v in metrics.items()}, self.step)

    def finish(self) -> None:
        """Log what the GPU's use leaves to be desired."""
        if self.gpu:
            for warning in self.gpu.warnings(self.seconds_waited / max(self.seconds, 1e-9)):
                self.tracker.log(warning)

    @property
    def samples_per_second(self) -> float:
        """The rows trained a second, pauses left out."""
        return self.samples / max(self.seconds, 1e-9)

    @property
    def _epoch(self) -> str:
        return f"epoch {-(-self.step // self.steps_per_epoch)}/{self.epochs}"
