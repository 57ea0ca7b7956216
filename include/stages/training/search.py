"""Search: trainings with other settings on the same dataset; the best on the validate windows becomes the challenger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.artifacts.store import Reference
from include.ports.training import Launcher, Searcher
from include.spec.model_spec import ModelSpec, Search
from include.stages.training import training

Settings = dict[str, float]


@dataclass(frozen=True)
class Attempt:
    """A training that is done: with which settings, how well it did on the validate windows, and its manifest."""

    settings: Settings
    logloss: float
    result: Reference

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Attempt":
        return cls(dict(data["settings"]), data["logloss"], Reference(**data["result"]))


def ask(spec: ModelSpec, told: Sequence[Attempt], searcher: Searcher) -> list[Settings]:
    """The next round's settings. The spec's own are the very first, so that a search never loses to them unseen."""
    asked = spec.training.search or Search()
    own = [] if told else [settings_of(spec)]
    known = [(attempt.settings, attempt.logloss) for attempt in told]
    space = _with_own(asked, settings_of(spec))
    return own + searcher.ask(space, known, asked.trainings - len(own), spec.training.seed + len(told))


def attempt(
    spec: ModelSpec, settings: Settings, dataset: Reference, folder: Path, launcher: Launcher, **given: Any
) -> Attempt:
    """Train with these settings, in a folder of their own; `given` is for `training.train`."""
    changed = with_settings(spec, settings)
    result = training.train(changed, dataset, folder, launcher, name=f"search-{changed.digest[:12]}", **given)
    return Attempt(settings, store.read(result)["metrics"]["validate"]["logloss"], result)


def best(told: Sequence[Attempt]) -> Reference:
    return min(told, key=lambda attempt: attempt.logloss).result


def settings_of(spec: ModelSpec) -> Settings:
    return {"learning_rate": spec.training.learning_rate, "cross_rank": spec.model.cross_rank,
            "dropout": spec.model.dropout}  # fmt: skip


def with_settings(spec: ModelSpec, settings: Settings) -> ModelSpec:
    shape = {"cross_rank": int(settings["cross_rank"]), "dropout": settings["dropout"]}
    return spec.model_copy(update={
        "model": spec.model.model_copy(update=shape),
        "training": spec.training.model_copy(update={"learning_rate": settings["learning_rate"]}),
    })  # fmt: skip


def _with_own(space: Search, own: Settings) -> Search:
    """The space widened to hold the spec's own settings, from which the search learns too."""

    def bounds(name: str, pair: tuple[float, float]) -> tuple[float, float]:
        return min(pair[0], own[name]), max(pair[1], own[name])

    ranks = tuple(sorted({*space.cross_rank, int(own["cross_rank"])}))
    return space.model_copy(update={
        "learning_rate": bounds("learning_rate", space.learning_rate),
        "dropout": bounds("dropout", space.dropout), "cross_rank": ranks,
    })  # fmt: skip
