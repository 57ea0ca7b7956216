"""Monitoring: look at production, say what is seen, and decide whether to retrain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.domain.errors import Corrupt
from include.domain.events import CauseRechecked, RetrainingDecided, TrainingFinished
from include.domain.monitoring import retraining
from include.domain.monitoring.drift import FeatureDrift
from include.domain.monitoring.retraining import RetrainingContext, RetrainingDecision
from include.domain.monitoring.signal import SIGNAL_NAMES, Signal, SignalState, unknown
from include.domain.windows import Grain, parse_utc, window_of
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.tables import Tables
from include.ports.traffic import Signals
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import data_signals, traffic_signals
from include.stages.monitoring.data_signals import SOURCE
from include.stages.release import champion as champions
from include.stages.serving import live_predictions

#: So many windows after the one before it, a window says that a clock jumped.
FAR = 30


@dataclass(frozen=True)
class Look:
    """What was seen at once. `as_of`: the data's clock, end of the newest landed window; `moved`: drift per window;
    `evidence`: what it rests on (see `evidence`)."""

    as_of: datetime | None
    newest: str
    version: str | None
    trained: datetime | None
    signals: tuple[Signal, ...]
    moved: Mapping[str, Sequence[FeatureDrift]]
    evidence: str = ""

    def __getitem__(self, name: str) -> Signal:
        return next(s for s in self.signals if s.name == name)


def clock(tables: Tables, grain: Grain) -> datetime | None:
    """The end of the newest landed window; None before the first."""
    landed = tables.windows(SOURCE)
    return window_of(landed[-1], grain).end if landed else None


def evidence(spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry) -> str:
    """Names all that a look rests on: another text once a window landed, a prediction or label was logged, the champion moved."""
    champion = registry.version_by_alias(spec.name, "champion")
    held = (f"{table} {tables.version(table)}" for table in ("landed", SOURCE))
    return f"champion {champion and champion.number}, {', '.join(held)}, log {signals.stamp(spec.name)}"


def news(spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry, ledger: Ledger) -> bool:
    """Whether there is evidence that the last look did not have."""
    decisions = ledger.read(spec.name, RetrainingDecided)
    now = evidence(spec, tables=tables, signals=signals, registry=registry)
    return not decisions or decisions[-1].evidence != now


def sense(
    spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry, as_of: datetime | None = None
) -> Look:
    """Every signal of `NAMES`; what cannot be known is `unknown` with its reason. `as_of` cuts the data off earlier.

    Raises Unavailable when a part of the stack does not answer.
    """
    rests_on = evidence(spec, tables=tables, signals=signals, registry=registry)
    as_of = as_of or clock(tables, spec.window)
    version = registry.version_by_alias(spec.name, "champion")
    if as_of is None or version is None:
        return _blind(as_of, None, rests_on, "no champion yet" if version is None else "no window has landed yet")
    try:
        champion = champions.load(version, spec.window)
    except Corrupt as fault:
        return _blind(as_of, version.number, rests_on, str(fault))
    landed = [w for w in tables.windows(SOURCE) if window_of(w, spec.window).end <= as_of]
    moved, found = data_signals.signals(spec, tables, champion, landed)
    seen = live_predictions.served(signals, spec.name, champion.version, as_of)
    found += traffic_signals.signals(spec, tables, champion, seen, landed=landed, as_of=as_of)
    found.append(retraining.age(spec.watch.retraining, champion.ends, as_of, _jump(spec.window, landed)))
    by_name = {s.name: s for s in found}
    shown = tuple(by_name.get(n, unknown(n, "not measured")) for n in (*SIGNAL_NAMES, *spec.watch.simple.checks))
    return Look(as_of, landed[-1] if landed else "", champion.version, champion.ends, shown, moved, rests_on)


def decide_and_record(spec: ModelSpec, look: Look, ledger: Ledger, *, run: str, running: str | None = None,
                      paused: bool = False) -> RetrainingDecision:  # fmt: skip
    """The decision and its row in the ledger; the same `run` asked again gets the answer it was given.

    `running`: the training run in flight; `paused`: a person has stopped retraining.
    """
    decisions = ledger.read(spec.name, RetrainingDecided)
    for earlier in decisions:
        if earlier.run == run:
            return RetrainingDecision(earlier.start, earlier.sentence, earlier.cause, earlier.request)
    _recheck_cause(spec, look, ledger, decisions)
    if look.as_of is None or look.trained is None:
        decision = RetrainingDecision(False, look["age"].sentence)
    else:
        situation = RetrainingContext(
            look.as_of, look.trained, _last_request(decisions), running, paused, _hours(spec, ledger, look.as_of)
        )
        decision = retraining.decide(spec.watch.retraining, look.signals, situation, look.newest)
    event = RetrainingDecided(
        run=run,
        as_of=look.as_of,
        window=look.newest,
        champion=look.version,
        evidence=look.evidence,
        start=decision.start,
        sentence=decision.sentence,
        cause=decision.cause,
        request=decision.request,
        signals=look.signals,
    )
    ledger.append(spec.name, event)
    return decision


def _jump(grain: Grain, landed: Sequence[str]) -> str | None:
    """The newest window's neighbour, when it lies too far off for a source that skipped a few windows."""
    if len(landed) < 2 or parse_utc(landed[-1]) - parse_utc(landed[-2]) <= FAR * grain.length:
        return None
    return landed[-2]


def _blind(as_of: datetime | None, version: str | None, rests_on: str, reason: str) -> Look:
    return Look(as_of, "", version, None, tuple(unknown(n, reason) for n in SIGNAL_NAMES), {}, rests_on)


def _last_request(decisions: Sequence[RetrainingDecided]) -> datetime | None:
    return max((event.as_of for event in decisions if event.start and event.as_of), default=None)


def _hours(spec: ModelSpec, ledger: Ledger, as_of: datetime) -> float:
    """Training hours of the last 30 days, from the ledger's `training` rows."""
    trainings = ledger.read(spec.name, TrainingFinished)
    return sum((event.hours for event in trainings if event.as_of > as_of - timedelta(days=30)), 0.0)


def _recheck_cause(spec: ModelSpec, look: Look, ledger: Ledger, decisions: Sequence[RetrainingDecided]) -> None:
    """Once after a retraining: has its cause gone with the new champion?"""
    request = next((event for event in reversed(decisions) if event.start), None)
    if request is None or request.request is None or look.version is None or look.version == request.champion:
        return
    if any(event.request == request.request for event in ledger.read(spec.name, CauseRechecked)):
        return
    now = next((s for s in look.signals if s.name == request.cause), None)
    if now is not None and now.state is not SignalState.UNKNOWN:
        event = CauseRechecked(
            request=request.request,
            window=look.newest,
            cleared=now.state is not SignalState.FIRE,
            champion=look.version,
            sentence=now.sentence,
        )
        ledger.append(spec.name, event)
