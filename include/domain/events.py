"""The events of the ledger: one frozen class for each kind of row, from a judged challenger to a retraining decision.

A field is named as its key in the row's JSON. A field with a default is one that some rows lack: rows of older releases,
or rows for which it makes no sense; a value equal to the default is not written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from include.domain.monitoring.signal import Signal
from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.variants import RequestCounts
from include.domain.verdict import Outcome, Verdict


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A row of the ledger: what happened to a model, and when (`at`, UTC). `kind` names the class in the row."""

    kind: ClassVar[str]
    at: datetime = field(default_factory=_now)


@dataclass(frozen=True, kw_only=True)
class TrainingFinished(Event):
    """A training run ended. `hours` are those of all its processes or GPUs together; its data ends at `as_of`."""

    kind = "training"
    run: str
    as_of: datetime
    hours: float


@dataclass(frozen=True, kw_only=True)
class RequestClaimed(Event):
    """The training run `run` claimed a request of the watch, so that no second run answers it."""

    kind = "requested"
    request: str
    run: str


@dataclass(frozen=True, kw_only=True)
class ChallengerJudged(Event):
    """The gates judged the challenger of a training run; `released` says whether it goes on to registration."""

    kind = "judged"
    run: str
    released: bool
    verdict: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VersionRegistered(Event):
    """A challenger became a version of the registry; `artifact` is the SHA-256 of its manifest."""

    kind = "registered"
    version: str
    artifact: str
    run: str
    verdict: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VersionApproved(Event):
    """A person, or `auto`, let a version be rolled out."""

    kind = "approved"
    version: str
    by: str


@dataclass(frozen=True, kw_only=True)
class VersionRejected(Event):
    """A person, or `auto`, refused a version, with the reasons."""

    kind = "rejected"
    version: str
    by: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ChampionPromoted(Event):
    """A version became champion in the place of `previous`, which is None for the first one.

    `run`, `verdict`, `approved_by` and `approved_at` (ISO 8601) are copied from the version's tags, None where it has none.
    """

    kind = "champion"
    version: str
    previous: str | None
    artifact: str
    reason: str
    run: str | None
    verdict: str | None
    approved_by: str | None
    approved_at: str | None


@dataclass(frozen=True, kw_only=True)
class PowerChecked(Event):
    """Whether the rollout's plan can tell what its guards ask, at the traffic of that moment."""

    kind = "plan"
    run: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class RolloutChanged(Event):
    """A rollout began or ended, or, outside of any rollout, all traffic was sent to stable.

    `event` is `began`, the phase in which the rollout ended, or `all to stable`, whose row has no more than the reason.
    `champion` is the version that was champion when the rollout began, None for a first release.
    """

    kind = "rollout"
    event: str
    version: str = ""
    champion: str | None = ""
    run: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class RoutesApplied(Event):
    """The gateway was set for a rollout of `version`: percent of the traffic to the canary slot, and whether it is mirrored."""

    kind = "routes"
    version: str
    canary: int
    mirror: bool


@dataclass(frozen=True, kw_only=True)
class StepAnalysed(Event):
    """One analysis of a rollout's step: the counts by slot so far, the verdict on them, and what followed.

    `number` counts the rollout's analyses from 1; `decision` is `wait`, `go on` or `roll back`.
    """

    kind = "look"
    run: str
    version: str
    step: str
    number: int
    decision: str
    sentence: str
    verdict: Verdict
    counts: Mapping[str, RequestCounts]


@dataclass(frozen=True, kw_only=True)
class ShadowCompared(Event):
    """How alike challenger and champion scored the same mirrored requests; see `shadow_comparison.Agreement`."""

    kind = "agreement"
    run: str
    version: str
    requests: int
    mean_difference: float
    mean_absolute_difference: float
    rank_correlation: float | None
    flipped: float
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ActionRequested(Event):
    """A person acted on a model's traffic, for a reason.

    `run` is the rollout's run: None while no rollout was active, empty in rows of releases that did not record it.
    """

    kind = "word"
    word: RolloutAction
    by: str
    reason: str
    run: str | None = ""


@dataclass(frozen=True, kw_only=True)
class RetrainingDecided(Event):
    """The watch decided whether to retrain, from these signals; `start` is True where a training was asked for.

    `as_of` is the end of the newest landed window, None before the first, and `window` that window's label. `cause` names
    the signal that fired first, and `request` the request for a training. `evidence` names all that the signals rest on.
    """

    kind = "decision"
    run: str
    as_of: datetime | None
    window: str
    champion: str | None
    evidence: str = ""
    start: bool
    sentence: str
    cause: str | None
    request: str | None
    signals: tuple[Signal, ...]


@dataclass(frozen=True, kw_only=True)
class CauseRechecked(Event):
    """Whether the cause of a retraining request has gone (`cleared`) with the champion that came of it.

    `window` is the newest window at that time, empty in rows of releases that did not record it.
    """

    kind = "cleared"
    request: str
    window: str = ""
    cleared: bool
    champion: str
    sentence: str


#: Every class of event by its kind.
EVENT_TYPES: Mapping[str, type[Event]] = {event_type.kind: event_type for event_type in Event.__subclasses__()}
