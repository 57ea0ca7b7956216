"""ModelSpec: the one YAML file a user writes for a model, checked whole before anything starts."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen, Predicate
from pydantic import Field, model_validator

from include.domain.bounds import (
    Duration,
    Fraction,
    NonNegativeInt,
    PositiveDuration,
    PositiveFloat,
    PositiveInt,
    in_order,
)
from include.domain.evaluation.gate_settings import MEASURED, Gates
from include.domain.features import aggregates, transforms
from include.domain.monitoring.drift import Drift
from include.domain.monitoring.naive_checks import Simple
from include.domain.monitoring.performance import Performance
from include.domain.monitoring.quality import Quality
from include.domain.monitoring.retraining import Retraining
from include.domain.monitoring.signal import SIGNAL_NAMES
from include.domain.rollout.plan import Rollout
from include.domain.training.families import FAMILIES, FamilyName
from include.domain.training.job_settings import NetworkSettings, TrainingSettings
from include.domain.training.pods import Pods
from include.domain.windows import Grain
from include.spec.data import Columns, Features, Section, SourceSpec, Validation

ONE_POD = Pods()
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


@dataclass(frozen=True)
class Model(NetworkSettings):
    """The architecture; `family` picks the algorithm (`blend` is the mean of dcn and lightgbm), the rest is DCN-v2's."""

    family: FamilyName = "dcn"


class Search(Section):
    """A few trainings with other settings, and the best of them by logloss on the validate windows as the challenger.

    The first takes the spec's own settings. Pairs are bounds, `cross_rank` lists the ranks to try.
    """

    rounds: PositiveInt = 3  #: each learns from those before
    trainings: PositiveInt = 3  #: of a round, side by side
    learning_rate: Annotated[tuple[PositiveFloat, PositiveFloat], Predicate(in_order)] = (5e-4, 5e-3)
    cross_rank: Annotated[tuple[NonNegativeInt, ...], MinLen(1)] = (16, 32, 64)
    dropout: Annotated[tuple[Fraction, Fraction], Predicate(in_order)] = (0.0, 0.5)


@dataclass(frozen=True)
class Training(TrainingSettings):
    """Window counts are counted back from the newest labelled window: `test`, before it `validate`, before it the rest."""

    windows: PositiveInt | None = None  #: train on the last so many; all when left out
    validate_windows: PositiveInt = 7
    test_windows: PositiveInt = 14
    processes: PositiveInt = 1
    restarts: NonNegativeInt = 3  #: of several processes after one is lost, each from the last checkpoint
    warm_start: bool = False  #: go on from the champion's weights, category by category, instead of from nothing
    search: Search | None = None
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 17
    timeout: PositiveDuration = timedelta(hours=6)
    kubernetes: Pods = ONE_POD


class Approval(Section):
    """`person` waits for an answer in Airflow; no answer within `timeout` counts as Reject."""

    mode: Literal["person", "auto"] = "person"
    timeout: PositiveDuration = timedelta(days=1)


class Notification(Section):
    """An Airflow notifier by its class and arguments, in whose texts `{title}` and `{text}` are filled in.

    The default reaches chat, mail and much else through an Airflow connection of the type Apprise.
    """

    notifier: str = "airflow.providers.apprise.notifications.apprise.AppriseNotifier"
    arguments: Mapping[str, Any] = {"title": "{title}", "body": "{text}"}

    def filled(self, title: str, text: str) -> dict[str, Any]:
        """Return the notifier's arguments with this title and text in their places."""
        return {
            name: value.replace("{title}", title).replace("{text}", text) if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }


class Serving(Section):
    """What a version tells the model servers; a new value counts from the next version on."""

    #: The share of the requests, chosen by their id, that the prediction log keeps.
    log_share: Annotated[float, Gt(0), Le(1)] = 1.0


class Watch(Section):
    """How production is watched: what counts as drift, decay or broken input, and when a training is asked for."""

    drift: Drift = Drift()
    performance: Performance = Performance()
    quality: Quality = Quality()
    simple: Simple = Simple()
    retraining: Retraining = Retraining()

    @model_validator(mode="after")
    def _names_signals_that_exist(self) -> Self:
        signals, retraining = (*SIGNAL_NAMES, *self.simple.checks), self.retraining
        errors = [
            f"retraining.{path}: {name} is no signal; there are {', '.join(signals)}"
            for path, names in (("triggers", retraining.triggers), ("blocks", retraining.blocks))
            for name in names
            if name not in signals
        ]
        if errors:
            raise ValueError("; ".join(errors))
        return self


class Schedule(Section):
    """Cron texts or presets; None leaves a DAG to requests alone. `start` and `end` bound the data's windows."""

    data: str = "@daily"
    train: str | None = "@weekly"
    watch: str | None = "*/5 * * * *"
    start: datetime
    end: datetime | None = None


class ModelSpec(Section):
    """Everything that Perennial needs to know to keep one model fresh; the rest of a model's files follow from it."""

    name: Name
    description: str
    owner: str = "perennial"
    tags: tuple[str, ...] = ()
    window: Grain = Grain.DAY
    source: SourceSpec
    columns: Columns
    label_delay: Duration = timedelta(days=1)
    features: Features = Features()
    validation: Validation = Validation()
    model: Model = Model()
    training: Training = Training()
    gates: Gates = Gates()
    approval: Approval = Approval()
    notify: tuple[Notification, ...] = ()
    serving: Serving = Serving()
    rollout: Rollout = Rollout()
    watch: Watch = Watch()
    schedule: Schedule

    @model_validator(mode="after")
    def _features_come_from_columns(self) -> Self:
        columns = self.columns
        outcomes = (columns.label, *columns.outcomes)
        if errors := list(aggregates.find_errors(self.features.aggregates, columns.categorical, outcomes)):
            raise ValueError(f"features.aggregates: {'; '.join(errors)}")
        categorical = (*columns.categorical, *self.features.time_parts)
        if errors := list(transforms.find_errors(self.features.transforms, columns.numeric, categorical)):
            raise ValueError("; ".join(f"features.transforms.{error}" for error in errors))
        return self

    @model_validator(mode="after")
    def _added_windows_come_from_file_names(self) -> Self:
        if "window" in self.columns.added.values() and not self.source.by_window:
            raise ValueError("columns.added: a window is the time only where source.path has {window:…} or {n}")
        return self

    @model_validator(mode="after")
    def _search_fits_the_family(self) -> Self:
        if self.training.search and not FAMILIES[self.model.family].searchable:
            searchable = " and ".join(name for name, family in FAMILIES.items() if family.searchable)
            raise ValueError(
                f"training.search: a {self.model.family} model has none of its settings; {searchable} have"
            )
        return self

    @model_validator(mode="after")
    def _gates_judge_what_exists(self) -> Self:
        if errors := [f"gates.{error}" for error in (*self._own_metrics_without_function(), *self._unknown_to_gates())]:
            raise ValueError("; ".join(errors))
        return self

    def _own_metrics_without_function(self) -> Iterator[str]:
        for name, metric in self.gates.metrics.items():
            if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", metric.of):
                yield f"metrics.{name}.of: {metric.of} is no function's name, e.g. sklearn.metrics:brier_score_loss"

    def _unknown_to_gates(self) -> Iterator[str]:
        """Yield an error for each metric, baseline and column that the gates name and that does not exist."""
        gates, features = self.gates, (*self.columns.categorical, *self.numeric)
        yield from _unknown("bounds", tuple(gates.bounds), MEASURED)
        yield from _unknown("baselines", gates.baselines, tuple(FAMILIES))
        yield from _unknown("slices.by", gates.slices.by, features)
        yield from _unknown("behaviour", [check.column for check in gates.behaviour], features)

    @property
    def numeric(self) -> tuple[str, ...]:
        """The numeric columns of the features table: those of a raw row, then the aggregates."""
        return (*self.columns.numeric, *self.features.aggregates.features)

    @property
    def baselines(self) -> tuple[FamilyName, ...]:
        """The model families of the gates' baselines, in the spec's order."""
        return tuple(family for name in self.gates.baselines for family in FAMILIES if family == name)

    @property
    def digest(self) -> str:
        """The SHA-256 of the whole spec with its defaults filled in."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _unknown(path: str, names: Sequence[str], existing: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in existing:
            yield f"{path}: {name} is not known; there are {', '.join(existing)}"
