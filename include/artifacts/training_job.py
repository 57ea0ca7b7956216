"""`job.json` as a launcher reads it; the trainer reads the settings of the network and of its training besides."""

from dataclasses import dataclass, field

from include.artifacts.store import Reference


@dataclass(frozen=True)
class LaunchSettings:
    """How often a training of several processes starts again after one of them is lost, each time from the last checkpoint."""

    restarts: int = 0


@dataclass(frozen=True)
class TrainingJob:
    """What a launcher needs to know of a job: its model family, its dataset, and the artifact that it goes on from."""

    family: str
    dataset: Reference
    start: Reference | None = None
    training: LaunchSettings = field(default_factory=LaunchSettings)
