"""Rollout: mirrored traffic, then growing shares of live traffic, each judged against the champion at the same time.

Every function can be called again after a kill at any point: what was done is read from the state file, the gateway
and the registry, never from memory. A look needs neither the registry nor Airflow, and neither does going back.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from include.domain.errors import Conflict, UserMistake
from include.domain.evaluation.candidates import CHAMPION
from include.domain.events import PowerChecked, RolloutChanged, RoutesApplied
from include.domain.rollout import power
from include.domain.rollout.actions import Word
from include.domain.verdict import Verdict
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.serving import Slots
from include.ports.tables import Tables
from include.ports.traffic import Router, Routes, Signals
from include.spec.model_spec import ModelSpec
from include.stages.release import promotion
from include.stages.release.promotion import ReleaseServices
from include.stages.rollout import state as rollout_state
from include.stages.rollout.state import Phase, State

#: Seconds that a slot may take to load a version.
SLOT_PATIENCE = 120.0
ALL_TO_STABLE = Routes()
#: The time over which the present traffic is measured when a plan is weighed.
TRAFFIC = timedelta(minutes=1)


@dataclass(frozen=True)
class Controls:
    """What a rollout acts on; `folder` holds the state files, `tables` are a model's."""

    folder: Path
    router: Router
    signals: Signals
    ledger: Ledger
    tables: Callable[[ModelSpec], Tables]


@dataclass(frozen=True)
class Stage:
    """One step of the plan: how traffic flows, and for how long at most."""

    name: str
    routes: Routes
    hold: timedelta


def plan(spec: ModelSpec) -> list[Stage]:
    """Shadow, then each step; a step's number is its place in this list."""
    shadow = Stage("shadow", Routes(canary=0, mirror=True), spec.rollout.shadow)
    return [shadow, *(Stage(f"{s.weight} %", Routes(canary=s.weight), s.hold) for s in spec.rollout.steps)]


def begin(
    spec: ModelSpec, controls: Controls, version: str, *, registry: Registry, slots: Slots, run: str, now: datetime
) -> State:
    """Make the version the challenger, wait until the canary slot serves it, and write the rollout's state.

    The same run goes on where it was. Raises Conflict while another version is being rolled out, UserMistake when the
    version is the champion already.
    """
    state = rollout_state.load(controls.folder, spec.name)
    if state and state.run == run:
        return state
    if state and state.active:
        raise Conflict(f"{spec.name}: version {state.version} is being rolled out (run {state.run}); wait or abort it")
    champion = promotion.set_challenger(spec.name, version, registry)
    slots.await_version("canary", spec.name, version, SLOT_PATIENCE)
    state = State(spec.name, version, champion, run, now)
    with rollout_state.locked(controls.folder, spec.name):
        rollout_state.save(controls.folder, state)
    controls.ledger.append(spec.name, RolloutChanged(event="began", version=version, champion=champion, run=run))
    return state


def supersede(spec: ModelSpec, controls: Controls, version: str, registry: Registry, run: str) -> State | None:
    """End the rollout of an older version where the spec's `newer` says so, and return its final state.

    Return None where there is none to end: none runs, it is this run's own, or the spec lets the newer version wait.
    """
    state = rollout_state.load(controls.folder, spec.name)
    if state is None or not state.active or state.run == run or spec.rollout.newer == "wait":
        return None
    rollback(spec.name, controls, f"superseded by version {version}")
    return close(spec.name, controls, registry)


def weigh(spec: ModelSpec, controls: Controls, run: str, now: datetime) -> Verdict:
    """Can the plan tell what its guards ask, at the present traffic, and how long would it take? Kept in the ledger.

    The traffic is the last minute's, the champion's shares of errors and slow answers are those since the gateway started.
    """
    seen = controls.signals.predictions(spec.name, now - TRAFFIC)
    stable = controls.signals.counts(spec.name, spec.rollout.guards.slow_ms).get("stable", rollout_state.NONE)
    shares = {"error_rate": stable.errors, "slow_share": stable.slow}
    rates = {name: count / max(stable.requests, 1) for name, count in shares.items()}
    verdict = power.check_plan(
        spec.rollout, round(seen.num_rows / spec.serving.log_share / TRAFFIC.total_seconds(), 1), rates
    )
    controls.ledger.append(spec.name, PowerChecked(run=run, verdict=verdict))
    return verdict


def enter(spec: ModelSpec, controls: Controls, run: str, step: int, now: datetime) -> str | None:
    """Let traffic flow as that step says. None, or the sentence that says why the step is skipped.

    A step that is entered already keeps its clock and its counts. Raises Conflict when the run's rollout has ended.
    """
    with rollout_state.locked(controls.folder, spec.name):
        state = running(spec.name, controls, run)
        if reason := skipped(spec, state, step):
            return reason
        if state.step != step:
            state = rollout_state.enter(state, step, now)
            rollout_state.save(controls.folder, state)
        _route(controls, state, plan(spec)[step].routes)
    return None


def skipped(spec: ModelSpec, state: State, step: int) -> str | None:
    """Why this step is not for this rollout."""
    if state.first_release and step < len(spec.rollout.steps):
        return "first release: there is no champion to compare with or to serve the rest of the traffic"
    if step == 0 and not spec.rollout.shadow:
        return "the spec asks for no shadow"
    return None


def promote(spec: ModelSpec, controls: Controls, run: str, registry: Registry, slots: Slots) -> State:
    """Make the version champion, bring all traffic back to the stable slot once that serves it, and return the final state.

    The old champion becomes `previous`. Raises Conflict when the champion moved since the rollout began, or somebody went
    back meanwhile.
    """
    state = rollout_state.load(controls.folder, spec.name)
    if state is None or state.run != run or state.phase is not Phase.PROMOTED:
        state = _promote(spec, controls, run, registry, slots)
    promotion.end_challenge(spec.name, state.version, registry, {"rollout": Phase.PROMOTED})
    return state


def _promote(spec: ModelSpec, controls: Controls, run: str, registry: Registry, slots: Slots) -> State:
    with rollout_state.locked(controls.folder, spec.name):
        state = replace(running(spec.name, controls, run), phase=Phase.PROMOTING)
        if state.step != len(spec.rollout.steps):
            raise UserMistake(f"{spec.name}: the rollout has not passed its last step, so nothing is promoted")
        rollout_state.save(controls.folder, state)
    slots.await_version("canary", spec.name, state.version, SLOT_PATIENCE)
    running(spec.name, controls, run)  # somebody may have gone back while the slot was waited for
    word, by = rollout_state.heard(controls.folder, state) or (None, "")
    reason = f"promoted by {by}" if word is Word.PROMOTE else f"passed every step of rollout {state.run}"
    release = ReleaseServices(registry, controls.ledger)
    promotion.promote(spec.name, state.version, state.champion, reason, release)
    slots.await_version("stable", spec.name, state.version, SLOT_PATIENCE)
    _route(controls, state, ALL_TO_STABLE)
    with rollout_state.locked(controls.folder, spec.name):
        running(spec.name, controls, run)
        return _end(controls, state, Phase.PROMOTED, reason)


def abort(model: str, controls: Controls, reason: str) -> None:
    """End the rollout that runs, at once. Raises UserMistake when none does."""
    state = rollout_state.load(controls.folder, model)
    if state is None or not state.active:
        raise UserMistake(f"{model}: no rollout is running, so there is nothing to abort")
    rollback(model, controls, f"aborted by {reason}")


def rollback(model: str, controls: Controls, reason: str) -> None:
    """All traffic to stable, then the record of it; needs neither registry nor Airflow, nor a rollout that runs.

    Raises Unavailable when the gateway is down; it takes the routes up by itself when it is back.
    """
    try:
        controls.router.apply(model, ALL_TO_STABLE)
    finally:
        with rollout_state.locked(controls.folder, model):
            state = rollout_state.load(controls.folder, model)
            if state and state.active:
                _end(controls, state, Phase.ROLLED_BACK, reason)
            else:
                controls.ledger.append(model, RolloutChanged(event="all to stable", reason=reason))
    # A step that was being entered meanwhile has seen the end by now, or has set its routes before it.
    if controls.router.current(model) != ALL_TO_STABLE:
        controls.router.apply(model, ALL_TO_STABLE)


def close(model: str, controls: Controls, registry: Registry) -> State:
    """Finish a rollback and return the final state: the version is no challenger any more and keeps the reason as a tag.

    Where its promotion was under way, the champion of before is put back.
    """
    state = rollout_state.load(controls.folder, model)
    if state is None or state.phase is not Phase.ROLLED_BACK:
        raise UserMistake(f"{model}: no rollout was rolled back, so there is nothing to close")
    champion = registry.version_by_alias(model, CHAMPION)
    if state.champion and champion and champion.number == state.version:
        reason = f"rolled back: {state.reason}"
        release = ReleaseServices(registry, controls.ledger)
        promotion.promote(model, state.champion, state.version, reason, release)
    tags = {"rollout": Phase.ROLLED_BACK, "rollout_reason": state.reason}
    promotion.end_challenge(model, state.version, registry, tags)
    return state


def hold(spec: ModelSpec, state: State) -> timedelta:
    """How long the step may last; a first release's only step has the longest time of the plan to show itself."""
    stages = plan(spec)
    return max(s.hold for s in stages) if state.first_release else stages[state.step].hold


def running(model: str, controls: Controls, run: str) -> State:
    """The state of the run's rollout. Raises UserMistake when none ever began, Conflict when it has ended."""
    state = rollout_state.load(controls.folder, model)
    if state is None:
        raise UserMistake(f"{model}: no rollout has begun")
    if state.run != run:
        raise Conflict(f"{model}: the rollout of version {state.version} (run {state.run}) took this one's place")
    if not state.active:
        raise Conflict(f"{model}: the rollout of version {state.version} was {state.phase}: {state.reason}")
    return state


def _route(controls: Controls, state: State, routes: Routes) -> None:
    """Apply, and record it: what a logged prediction was, live or shadow, follows from these rows."""
    controls.router.apply(state.model, routes)
    event = RoutesApplied(version=state.version, canary=routes.canary, mirror=routes.mirror)
    controls.ledger.append(state.model, event)


def _end(controls: Controls, state: State, phase: Phase, reason: str) -> State:
    event = RolloutChanged(event=phase, version=state.version, champion=state.champion, run=state.run, reason=reason)
    controls.ledger.append(state.model, event)
    ended = replace(state, phase=phase, reason=reason)
    rollout_state.save(controls.folder, ended)
    return ended
