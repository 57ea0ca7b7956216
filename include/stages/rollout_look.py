"""One look at a running rollout: read what the gateway counted, judge it, keep the evidence, and act on it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from include.domain import canary
from include.domain.errors import Unavailable
from include.domain.verdict import Check, Outcome, Verdict
from include.ports import ArmCounts
from include.spec import ModelSpec
from include.stages import rollout, rollout_state
from include.stages.rollout import Controls
from include.stages.rollout_state import NONE, State, Word

#: A step's traffic counts only after this: connections and caches of the new slot are cold.
WARM_UP = timedelta(seconds=2)
#: A slot that got nothing where so many requests were its share is out of the gateway's rotation.
NOTICED = 50

Decision = Literal["wait", "go on", "roll back"]


@dataclass(frozen=True)
class Look:
    """What a look decided; `roll back` has been done already when it is returned."""

    decision: Decision
    verdict: Verdict
    sentence: str


def look(spec: ModelSpec, controls: Controls, now: datetime) -> Look:
    """Judge the step so far. Cheap and without memory: a killed caller looks again from anywhere.

    Raises Conflict when the rollout has ended, UserMistake when none began.
    """
    state = rollout.running(spec.name, controls)
    word, by = rollout_state.heard(controls.folder, state) or (Word.RESUME, "")
    if word is Word.ABORT:
        return _go_back(controls, state, Look("roll back", Verdict("a person's word", ()), f"aborted by {by}"))
    if word is Word.PAUSE:
        return Look("wait", Verdict("a person's word", ()), f"paused by {by}; say resume, promote or abort")
    try:
        counts = controls.signals.counts(spec.name, spec.rollout.guards.slow_ms)
    except Unavailable as fault:
        counts, unread = dict(state.seen or {}), f" (counts not read: {fault})"
    else:
        unread = ""
    began = state.step_began or now
    state = rollout_state.advance(state, counts, warm=now - began >= WARM_UP)
    if not _keep(controls, state):
        return Look("wait", Verdict("traffic", ()), "another look or a person was faster")
    verdict = judge(spec, state)
    seen = decide(spec, state, verdict, now)
    if word is Word.PROMOTE:
        seen = Look("go on", verdict, f"promoted by {by}")
    seen = replace(seen, sentence=seen.sentence + unread)
    _note(spec, controls, state, seen)
    return _go_back(controls, state, seen) if seen.decision == "roll back" else seen


def judge(spec: ModelSpec, state: State) -> Verdict:
    """The verdict on the traffic of this step so far, against the champion's at the same time."""
    stable, challenger = (state.sums.get(slot, NONE) for slot in ("stable", "canary"))
    weight = rollout.plan(spec)[state.step].routes.canary
    verdict = canary.judge(spec.rollout, None if weight == 100 else _arm(stable), _arm(challenger))
    share = (stable.requests + challenger.requests) * weight / 100
    if weight == 100 or challenger.requests or share < NOTICED:
        return verdict
    sentence = f"the canary answered none of about {share:.0f} requests that were its share: the gateway took it out"
    return Verdict(verdict.subject, (Check("traffic", Outcome.FAIL, sentence, value=0.0, bound=share), *verdict.checks))


def decide(spec: ModelSpec, state: State, verdict: Verdict, now: datetime) -> Look:
    """What follows from a verdict at this moment of the step, and why."""
    stage = rollout.plan(spec)[state.step]
    hold, since = rollout.hold(spec, state), now - (state.step_began or now)
    why = "; ".join(verdict.reasons)
    if verdict.outcome is Outcome.FAIL:
        return Look("roll back", verdict, f"{stage.name}: {why}")
    if verdict.outcome is Outcome.PASS and (since >= hold or not stage.routes.mirror):
        return Look("go on", verdict, f"{stage.name}: not worse on any guard")
    if not hold:
        return Look("go on", verdict, f"{stage.name}: the spec asks for no hold")
    if now - state.began >= spec.rollout.max_duration:
        return Look(
            "roll back", verdict, f"{stage.name}: the rollout took longer than {spec.rollout.max_duration}; {why}"
        )
    if since < hold:
        return Look("wait", verdict, f"{stage.name}: {_seconds(since)} of at most {_seconds(hold)}; {why}")
    return _undecided(spec, verdict, f"{stage.name}: still {verdict.outcome} after {_seconds(hold)}; {why}")


def _undecided(spec: ModelSpec, verdict: Verdict, said: str) -> Look:
    if spec.rollout.on_inconclusive == "hold":
        return Look("wait", verdict, f"{said}; held for a person: say promote or abort")
    return Look("roll back", verdict, said)


def _keep(controls: Controls, state: State) -> bool:
    """Save the state unless somebody changed it since it was read."""
    with rollout_state.locked(controls.folder, state.model):
        stored = rollout_state.load(controls.folder, state.model)
        if stored is None or (stored.phase, stored.step, stored.looks) != (state.phase, state.step, state.looks - 1):
            return False
        rollout_state.save(controls.folder, state)
        return True


def _note(spec: ModelSpec, controls: Controls, state: State, seen: Look) -> None:
    controls.ledger.append(
        spec.name, "look", run=state.run, version=state.version, step=rollout.plan(spec)[state.step].name,
        number=state.looks, decision=seen.decision, sentence=seen.sentence, verdict=seen.verdict.to_dict(),
        counts={slot: [arm.requests, arm.errors, arm.slow] for slot, arm in state.sums.items()},
    )  # fmt: skip


def _go_back(controls: Controls, state: State, seen: Look) -> Look:
    rollout.rollback(state.model, controls, seen.sentence)
    return seen


def _arm(counts: ArmCounts) -> canary.Arm:
    return canary.Arm(counts.requests, counts.errors, counts.slow)


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
