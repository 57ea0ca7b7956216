"""The speed of a training."""

import torch

from include.trainer.tracking.progress import Progress
from include.trainer.tracking.tracker import SilentTracker


def test_what_comes_after_the_last_step_is_no_training() -> None:
    progress = Progress(SilentTracker(), epochs=1, steps_per_epoch=1, first_step=0, gpu=None)
    progress.after_step(1, 100, torch.tensor(0.5))
    seconds, speed = progress.seconds, progress.samples_per_second
    assert seconds > 0
    assert speed == 100 / seconds
    progress.finish()
    assert (progress.seconds, progress.samples_per_second) == (seconds, speed)
