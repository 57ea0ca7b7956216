"""Rollout: mirrored traffic, then growing shares of live traffic, each judged against the champion at the same time.

Every function can be called again after a kill at any point: what has happened is read from the state file, the gateway
and the registry, never from memory. An analysis needs neither the registry nor Airflow, and neither does a rollback.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from include.domain.errors import Conflict, UserMistake
from include.domain.evaluation.candidates import CHAMPION
from include.domain.events import PowerChecked, RolloutChanged, RoutesApplied
from include.domain.rollout import power
from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.variants import RequestCounts
from include.domain.verdict import Verdict
from include.ports.traffic import Routes
from include.spec.model_spec import ModelSpec
from include.stages.release import promotion
from include.stages.rollout import state_file
from include.stages.rollout.services import RolloutServices
from include.stages.rollout.state import Phase, RolloutState
from include.stages.rollout.steps import last_step, skip_reason, steps_of

#: Seconds that a slot may take to load a version.
SLOT_TIMEOUT = 120.0
ALL_TO_STABLE = Routes()
#: The time over which the present traffic is measured for the power of a plan.
TRAFFIC_WINDOW = timedelta(minutes=1)


def begin(spec: ModelSpec, services: RolloutServices, version: str, run: str, now: datetime) -> RolloutState:
    """Make the version the challenger, wait until the canary slot serves it, and write the rollout's state.

    The same run goes on where it was. Raises Conflict while another version is being rolled out, UserMistake when the
    version is the champion already.
    """
    state = state_file.load(services.folder, spec.name)
    if state and state.run == run:
        return state
    if state and state.active:
        raise Conflict(f"{spec.name}: version {state.version} is being rolled out (run {state.run}); wait or abort it")
    champion = promotion.set_challenger(spec.name, version, services.registry)
    services.slots.await_version("canary", spec.name, version, SLOT_TIMEOUT)
    state = RolloutState(spec.name, version, champion, run, now)
    with state_file.locked(services.folder, spec.name):
        state_file.save(services.folder, state)
    services.ledger.append(spec.name, RolloutChanged(event="began", version=version, champion=champion, run=run))
    return state


def supersede(spec: ModelSpec, services: RolloutServices, version: str, run: str) -> RolloutState | None:
    """End the rollout of an older version where the spec's `newer` says so, and return its final state.

    Return None where there is none to end: none runs, it is this run's own, or the spec lets the newer version wait.
    """
    state = state_file.load(services.folder, spec.name)
    if state is None or not state.active or state.run == run or spec.rollout.newer == "wait":
        return None
    rollback(spec.name, services, f"superseded by version {version}")
    return close(spec.name, services)


def check_power(spec: ModelSpec, services: RolloutServices, run: str, now: datetime) -> Verdict:
    """Judge whether the plan is long enough, at the present traffic, for what its guards ask, and record the verdict.

    The traffic is that of the last minute; the champion's shares of errors and slow answers are those that were counted
    since the gateway started.
    """
    logged = services.signals.predictions(spec.name, now - TRAFFIC_WINDOW).num_rows
    requests_per_second = round(logged / spec.serving.log_share / TRAFFIC_WINDOW.total_seconds(), 1)
    counts = services.signals.request_counts(spec.name, spec.rollout.guards.slow_ms)
    stable = counts.get("stable", RequestCounts())
    rates = {
        "error_rate": stable.errors / max(stable.requests, 1),
        "slow_share": stable.slow / max(stable.requests, 1),
    }
    verdict = power.check_plan(spec.rollout, requests_per_second, rates)
    services.ledger.append(spec.name, PowerChecked(run=run, verdict=verdict))
    return verdict


def enter_step(spec: ModelSpec, services: RolloutServices, run: str, step: int, now: datetime) -> str | None:
    """Split the traffic as that step says. Return None, or why the step is skipped.

    A step that has begun already keeps its clock and its counts. Raises Conflict when the run's rollout has ended.
    """
    with state_file.locked(services.folder, spec.name):
        state = running_state(spec.name, services, run)
        if reason := skip_reason(spec.rollout, state, step):
            return reason
        if state.step != step:
            state = state.entering(step, now)
            state_file.save(services.folder, state)
        _apply(services, state, steps_of(spec.rollout)[step].routes)
    return None


def promote(spec: ModelSpec, services: RolloutServices, run: str) -> RolloutState:
    """Make the version champion, bring all traffic back to the stable slot once that serves it, and return the final state.

    The old champion becomes `previous`. Raises Conflict when the champion moved since the rollout began, or when somebody
    rolled back meanwhile.
    """
    state = state_file.load(services.folder, spec.name)
    if state is None or state.run != run or state.phase is not Phase.PROMOTED:
        state = _promote(spec, services, run)
    promotion.end_challenge(spec.name, state.version, services.registry, {"rollout": Phase.PROMOTED})
    return state


def _promote(spec: ModelSpec, services: RolloutServices, run: str) -> RolloutState:
    with state_file.locked(services.folder, spec.name):
        state = replace(running_state(spec.name, services, run), phase=Phase.PROMOTING)
        if state.step != last_step(spec.rollout):
            raise UserMistake(f"{spec.name}: the rollout has not passed its last step, so nothing is promoted")
        state_file.save(services.folder, state)
    services.slots.await_version("canary", spec.name, state.version, SLOT_TIMEOUT)
    running_state(spec.name, services, run)  # somebody may have rolled back while the slot was waited for
    reason = _promotion_reason(services, state)
    promotion.promote(spec.name, state.version, state.champion, reason, services.release)
    services.slots.await_version("stable", spec.name, state.version, SLOT_TIMEOUT)
    _apply(services, state, ALL_TO_STABLE)
    with state_file.locked(services.folder, spec.name):
        running_state(spec.name, services, run)
        return _end(services, state, Phase.PROMOTED, reason)


def _promotion_reason(services: RolloutServices, state: RolloutState) -> str:
    pending = state_file.latest_action(services.folder, state)
    if pending and pending.action is RolloutAction.PROMOTE:
        return f"promoted by {pending.by}"
    return f"passed every step of rollout {state.run}"


def abort(model: str, services: RolloutServices, reason: str) -> None:
    """End the rollout that runs, at once. Raises UserMistake when none does."""
    state = state_file.load(services.folder, model)
    if state is None or not state.active:
        raise UserMistake(f"{model}: no rollout is running, so there is nothing to abort")
    rollback(model, services, f"aborted by {reason}")


def rollback(model: str, services: RolloutServices, reason: str) -> None:
    """Send all traffic to stable, then record it; needs neither registry nor Airflow, nor a rollout that runs.

    Raises Unavailable when the gateway is down; it takes the routes up by itself when it is back.
    """
    try:
        services.router.apply(model, ALL_TO_STABLE)
    finally:
        with state_file.locked(services.folder, model):
            state = state_file.load(services.folder, model)
            if state and state.active:
                _end(services, state, Phase.ROLLED_BACK, reason)
            else:
                services.ledger.append(model, RolloutChanged(event="all to stable", reason=reason))
    # A step that was being entered meanwhile has found the rollout ended by now, or has set its routes before that.
    if services.router.current(model) != ALL_TO_STABLE:
        services.router.apply(model, ALL_TO_STABLE)


def close(model: str, services: RolloutServices) -> RolloutState:
    """Finish a rollback and return the final state: the version is no challenger any more and keeps the reason as a tag.

    Where its promotion was under way, the champion of before is put back.
    """
    state = state_file.load(services.folder, model)
    if state is None or state.phase is not Phase.ROLLED_BACK:
        raise UserMistake(f"{model}: no rollout was rolled back, so there is nothing to close")
    champion = services.registry.version_by_alias(model, CHAMPION)
    if state.champion and champion and champion.number == state.version:
        reason = f"rolled back: {state.reason}"
        promotion.promote(model, state.champion, state.version, reason, services.release)
    tags = {"rollout": Phase.ROLLED_BACK, "rollout_reason": state.reason}
    promotion.end_challenge(model, state.version, services.registry, tags)
    return state


def running_state(model: str, services: RolloutServices, run: str) -> RolloutState:
    """Return the state of the run's rollout. Raises UserMistake when none ever began, Conflict when it has ended."""
    state = state_file.load(services.folder, model)
    if state is None:
        raise UserMistake(f"{model}: no rollout has begun")
    if state.run != run:
        raise Conflict(f"{model}: the rollout of version {state.version} (run {state.run}) took this one's place")
    if not state.active:
        raise Conflict(f"{model}: the rollout of version {state.version} was {state.phase}: {state.reason}")
    return state


def _apply(services: RolloutServices, state: RolloutState, routes: Routes) -> None:
    """Set the split and record it: whether a logged prediction was live or shadow follows from these rows."""
    services.router.apply(state.model, routes)
    event = RoutesApplied(version=state.version, canary=routes.canary, mirror=routes.mirror)
    services.ledger.append(state.model, event)


def _end(services: RolloutServices, state: RolloutState, phase: Phase, reason: str) -> RolloutState:
    event = RolloutChanged(event=phase, version=state.version, champion=state.champion, run=state.run, reason=reason)
    services.ledger.append(state.model, event)
    ended = replace(state, phase=phase, reason=reason)
    state_file.save(services.folder, ended)
    return ended
