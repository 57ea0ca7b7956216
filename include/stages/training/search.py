"""Search: trainings with other settings on the same dataset; the best on the validate windows becomes the challenger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.ports.training import Launcher, Searcher
from include.spec.model_spec import ModelSpec, Search
from include.stages.training import training
from include.stages.training.training import TrainingRun

Settings = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """A finished training: its settings, its logloss on the validate windows, and the reference to its manifest."""

    settings: Settings
    logloss: float
    result: Reference

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Trial":
        """Return the trial that `dataclasses.asdict` turned into `data`."""
        return cls(dict(data["settings"]), data["logloss"], Reference(**data["result"]))


def suggest(spec: ModelSpec, trials: Sequence[Trial], searcher: Searcher) -> list[Settings]:
    """Return the settings of the next round after the trials of the rounds before.

    The spec's own settings are the first trial of all, so that a search never ends below them.
    """
    space, own_settings = spec.training.search or Search(), settings_of(spec)
    first = [] if trials else [own_settings]
    losses = [(trial.settings, trial.logloss) for trial in trials]
    count, seed = space.trainings - len(first), spec.training.seed + len(trials)
    return first + searcher.suggest(_widened(space, own_settings), losses, count, seed)


def run_trial(spec: ModelSpec, settings: Settings, run: TrainingRun, launcher: Launcher) -> Trial:
    """Train with these settings, in a folder of their own, and return the trial."""
    changed = with_settings(spec, settings)
    result = training.train(changed, run, launcher, name=f"search-{changed.digest[:12]}")
    return Trial(settings, store.read(result, ModelManifest).metrics.validate.logloss, result)


def best(trials: Sequence[Trial]) -> Reference:
    """Return the result of the trial with the least logloss."""
    return min(trials, key=lambda trial: trial.logloss).result


def settings_of(spec: ModelSpec) -> Settings:
    """Return the spec's own values of the settings that a search varies."""
    return {
        "learning_rate": spec.training.learning_rate,
        "cross_rank": spec.model.cross_rank,
        "dropout": spec.model.dropout,
    }


def with_settings(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """Return the spec with these settings in the place of its own."""
    model = replace(spec.model, cross_rank=int(settings["cross_rank"]), dropout=settings["dropout"])
    training_section = replace(spec.training, learning_rate=settings["learning_rate"])
    return spec.model_copy(update={"model": model, "training": training_section})


def _widened(space: Search, own_settings: Settings) -> Search:
    """Return the space widened to hold the spec's own settings, from which the search learns too."""

    def bounds(name: str, pair: tuple[float, float]) -> tuple[float, float]:
        return min(pair[0], own_settings[name]), max(pair[1], own_settings[name])

    learning_rate, dropout = bounds("learning_rate", space.learning_rate), bounds("dropout", space.dropout)
    cross_rank = tuple(sorted({*space.cross_rank, int(own_settings["cross_rank"])}))
    return space.model_copy(update={"learning_rate": learning_rate, "dropout": dropout, "cross_rank": cross_rank})
