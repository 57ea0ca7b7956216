"""Monitoring: measure what production shows as signals, decide whether to retrain, and record the decision."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from include.domain.errors import Corrupt
from include.domain.events import CauseRechecked, RetrainingDecided, TrainingFinished
from include.domain.monitoring import retraining
from include.domain.monitoring.retraining import RetrainingContext, RetrainingDecision
from include.domain.monitoring.signal import SIGNAL_NAMES, SignalState, unknown
from include.domain.windows import Grain, parse_utc, window_of
from include.ports.ledger import Ledger
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import data_signals, traffic_signals
from include.stages.monitoring.data_signals import SOURCE
from include.stages.monitoring.services import MonitoringServices
from include.stages.monitoring.snapshot import Snapshot
from include.stages.release import champion as champions
from include.stages.serving import live_predictions

#: A window that comes more than so many windows after the one before it means that a clock has jumped.
JUMP_WINDOWS = 30
#: The span over which the hours of training are added up.
BUDGET_SPAN = timedelta(days=30)


def data_clock(tables: Tables, grain: Grain) -> datetime | None:
    """Return the end of the newest landed window, None before the first one."""
    landed = tables.windows(SOURCE)
    return window_of(landed[-1], grain).end if landed else None


def evidence_revision(spec: ModelSpec, services: MonitoringServices) -> str:
    """Return a text that changes when a window lands, a prediction or label is logged, or the champion changes."""
    champion = services.registry.version_by_alias(spec.name, "champion")
    tables = ", ".join(f"{table} {services.tables.version(table)}" for table in ("landed", SOURCE))
    return f"champion {champion and champion.number}, {tables}, log {services.signals.revision(spec.name)}"


def has_new_evidence(spec: ModelSpec, services: MonitoringServices) -> bool:
    """Return whether there is evidence that the last decision did not rest on."""
    decisions = services.ledger.read(spec.name, RetrainingDecided)
    return not decisions or decisions[-1].evidence != evidence_revision(spec, services)


def take_snapshot(spec: ModelSpec, services: MonitoringServices, as_of: datetime | None = None) -> Snapshot:
    """Return a snapshot of every signal of `SIGNAL_NAMES` and of the naive checks that the spec asks for.

    A signal that cannot be measured is `unknown`, with the reason. `as_of` ends the data earlier than the newest landed
    window. Raises Unavailable when a part of the stack does not answer.
    """
    evidence = evidence_revision(spec, services)
    as_of = as_of or data_clock(services.tables, spec.window)
    version = services.registry.version_by_alias(spec.name, "champion")
    if as_of is None or version is None:
        reason = "no champion yet" if version is None else "no window has landed yet"
        return _unknown_snapshot(as_of, None, evidence, reason)
    try:
        champion = champions.load(version, spec.window)
    except Corrupt as error:
        return _unknown_snapshot(as_of, version.number, evidence, str(error))
    landed = [w for w in services.tables.windows(SOURCE) if window_of(w, spec.window).end <= as_of]
    predictions = live_predictions.predictions_of(services.signals, spec.name, champion.version, as_of)
    signals = [
        *data_signals.signals(spec, services.tables, champion, landed),
        *traffic_signals.signals(spec, services.tables, champion, predictions, landed=landed, as_of=as_of),
        retraining.age(spec.watch.retraining, champion.data_ends, as_of, _window_before_jump(spec.window, landed)),
    ]
    by_name = {signal.name: signal for signal in signals}
    names = (*SIGNAL_NAMES, *spec.watch.simple.checks)
    return Snapshot(
        as_of=as_of,
        newest_window=landed[-1] if landed else "",
        champion_version=champion.version,
        data_ends=champion.data_ends,
        signals=tuple(by_name.get(name, unknown(name, "not measured")) for name in names),
        evidence=evidence,
    )


def decide_and_record(
    spec: ModelSpec,
    snapshot: Snapshot,
    ledger: Ledger,
    *,
    run: str,
    running: str | None = None,
    paused: bool = False,
) -> RetrainingDecision:
    """Return the decision that follows from the snapshot, and append it to the ledger.

    A `run` that has decided already gets the same decision again. `running` is the training that is running, `paused` says
    whether a person has paused retraining.
    """
    decisions = ledger.read(spec.name, RetrainingDecided)
    for earlier in decisions:
        if earlier.run == run:
            return RetrainingDecision(earlier.start, earlier.sentence, earlier.cause, earlier.request)
    _recheck_cause(spec, snapshot, ledger, decisions)
    if snapshot.as_of is None or snapshot.data_ends is None:
        decision = RetrainingDecision(False, snapshot["age"].sentence)
    else:
        context = RetrainingContext(
            now=snapshot.as_of,
            data_ends=snapshot.data_ends,
            requested=_last_request(decisions),
            running=running,
            paused=paused,
            hours_spent=_training_hours(spec, ledger, snapshot.as_of),
        )
        decision = retraining.decide(spec.watch.retraining, snapshot.signals, context, snapshot.newest_window)
    ledger.append(spec.name, _event(snapshot, decision, run))
    return decision


def _event(snapshot: Snapshot, decision: RetrainingDecision, run: str) -> RetrainingDecided:
    return RetrainingDecided(
        run=run,
        as_of=snapshot.as_of,
        window=snapshot.newest_window,
        champion=snapshot.champion_version,
        evidence=snapshot.evidence,
        start=decision.start,
        sentence=decision.sentence,
        cause=decision.cause,
        request=decision.request,
        signals=snapshot.signals,
    )


def _window_before_jump(grain: Grain, landed: Sequence[str]) -> str | None:
    """Return the window before the newest one, where it lies too far off for a source that skipped a few windows."""
    if len(landed) < 2 or parse_utc(landed[-1]) - parse_utc(landed[-2]) <= JUMP_WINDOWS * grain.length:
        return None
    return landed[-2]


def _unknown_snapshot(as_of: datetime | None, version: str | None, evidence: str, reason: str) -> Snapshot:
    signals = tuple(unknown(name, reason) for name in SIGNAL_NAMES)
    return Snapshot(as_of, "", version, None, signals, evidence)


def _last_request(decisions: Sequence[RetrainingDecided]) -> datetime | None:
    """Return the data's clock at the last request for a training."""
    return max((event.as_of for event in decisions if event.start and event.as_of), default=None)


def _training_hours(spec: ModelSpec, ledger: Ledger, as_of: datetime) -> float:
    """Return the hours of training of the last 30 days."""
    trainings = ledger.read(spec.name, TrainingFinished)
    return sum((event.hours for event in trainings if event.as_of > as_of - BUDGET_SPAN), 0.0)


def _recheck_cause(spec: ModelSpec, snapshot: Snapshot, ledger: Ledger, decisions: Sequence[RetrainingDecided]) -> None:
    """Record, once for each request, whether its cause has gone with the champion that came after it."""
    requested = next((event for event in reversed(decisions) if event.start), None)
    champion = snapshot.champion_version
    if requested is None or requested.request is None or champion is None or champion == requested.champion:
        return
    if any(event.request == requested.request for event in ledger.read(spec.name, CauseRechecked)):
        return
    cause = next((s for s in snapshot.signals if s.name == requested.cause), None)
    if cause is None or cause.state is SignalState.UNKNOWN:
        return
    event = CauseRechecked(
        request=requested.request,
        window=snapshot.newest_window,
        cleared=cause.state is not SignalState.FIRE,
        champion=champion,
        sentence=cause.sentence,
    )
    ledger.append(spec.name, event)
