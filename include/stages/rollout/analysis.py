"""One look at a running rollout: read what the gateway counted, judge it, keep the evidence, and act on it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from include.domain.errors import Unavailable
from include.domain.events import RequestCounts, ShadowCompared, StepAnalysed
from include.domain.rollout import canary
from include.domain.rollout.actions import Word
from include.domain.rollout.variants import Stratum, VariantTraffic
from include.domain.verdict import Check, Outcome, Verdict
from include.ports.traffic import ArmCounts
from include.spec.model_spec import ModelSpec
from include.stages.rollout import request_metrics, rollout, shadow_comparison
from include.stages.rollout import state as rollout_state
from include.stages.rollout.request_metrics import Values
from include.stages.rollout.rollout import Controls
from include.stages.rollout.state import NONE, State

#: A slot that got nothing where so many requests were its share is out of the gateway's rotation.
NOTICED = 50
#: The prediction log and the labels are read so often, because reading them costs more than a look may.
READ_EVERY = timedelta(seconds=10)

Decision = Literal["wait", "go on", "roll back"]


@dataclass(frozen=True)
class Look:
    """What a look decided; `roll back` has been done already when it is returned."""

    decision: Decision
    verdict: Verdict
    sentence: str


def look(spec: ModelSpec, controls: Controls, run: str, now: datetime) -> Look:
    """Judge the step so far. Cheap and without memory: a killed caller looks again from anywhere.

    A look that saw a request, or that decides, is a row of the ledger. Raises Conflict when the run's rollout has ended,
    UserMistake when none began.
    """
    state = rollout.running(spec.name, controls, run)
    word, by = rollout_state.heard(controls.folder, state) or (Word.RESUME, "")
    counts, fault = _counts(spec, controls)
    warm = now - (state.step_began or now) >= spec.rollout.warm_up
    state = _with_values(spec, controls, rollout_state.advance(state, counts, warm), now)
    fresh = state.requests > state.noted
    state = replace(state, noted=state.requests)
    if not _keep(controls, state):
        return Look("wait", Verdict("traffic", ()), "another look or a person was faster")
    seen, step = decide(spec, state, judge(spec, state), now), rollout.plan(spec)[state.step].name
    if word is Word.PROMOTE:
        seen = Look("go on", seen.verdict, f"{step}: promoted by {by}")
    elif word is Word.PAUSE and seen.verdict.outcome is not Outcome.FAIL:
        seen = Look("wait", seen.verdict, f"{step}: paused by {by}; say resume, promote or abort")
    elif state.step == 0 and seen.decision == "go on":
        seen = _agreed(spec, controls, state, seen)
    seen = replace(seen, sentence=seen.sentence + fault)
    if fresh or seen.decision != "wait":
        _note(spec, controls, state, seen)
    return _go_back(controls, state, seen) if seen.decision == "roll back" else seen


def judge(spec: ModelSpec, state: State) -> Verdict:
    """The verdict on the traffic so far, against the champion's at the same time.

    Mirrored and live traffic are judged apart, and so is the last step, which has no champion beside it.
    """
    weights = [stage.routes.canary for stage in rollout.plan(spec)]
    alone = weights[state.step] == 100
    live = [step for step in range(1, state.step + 1) if weights[step] < 100]
    steps = [state.step] if alone or state.step == 0 else live
    verdict = canary.judge(spec.rollout, [_span(state, step, alone) for step in steps])
    return Verdict(verdict.subject, (*_absent(state, weights[state.step]), *verdict.checks))


def decide(spec: ModelSpec, state: State, verdict: Verdict, now: datetime) -> Look:
    """What follows from a verdict at this moment of the step, and why."""
    stage = rollout.plan(spec)[state.step]
    hold, since = rollout.hold(spec, state), now - (state.step_began or now)
    why = "; ".join(verdict.reasons)
    if verdict.outcome is Outcome.FAIL:
        return Look("roll back", verdict, f"{stage.name}: {why}")
    # The steps before count for the verdict, but each must have been seen to carry its own traffic.
    enough = _canary(state).requests >= spec.rollout.min_requests and (since >= hold or not stage.routes.mirror)
    if verdict.outcome is Outcome.PASS and enough:
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


def _counts(spec: ModelSpec, controls: Controls) -> tuple[Mapping[str, ArmCounts] | None, str]:
    """What the gateway counted; or None, and why."""
    try:
        return controls.signals.counts(spec.name, spec.rollout.guards.slow_ms), ""
    except Unavailable as fault:
        return None, f" (counts not read: {fault})"


def _keep(controls: Controls, state: State) -> bool:
    """Save the state unless somebody changed it since it was read."""
    with rollout_state.locked(controls.folder, state.model):
        stored = rollout_state.load(controls.folder, state.model)
        if stored is None or (stored.phase, stored.step, stored.looks) != (state.phase, state.step, state.looks - 1):
            return False
        rollout_state.save(controls.folder, state)
        return True


def _note(spec: ModelSpec, controls: Controls, state: State, seen: Look) -> None:
    event = StepAnalysed(
        run=state.run,
        version=state.version,
        step=rollout.plan(spec)[state.step].name,
        number=state.looks,
        decision=seen.decision,
        sentence=seen.sentence,
        verdict=seen.verdict,
        counts={slot: RequestCounts(arm.requests, arm.errors, arm.slow) for slot, arm in state.traffic.items()},
    )
    controls.ledger.append(spec.name, event)


def _agreed(spec: ModelSpec, controls: Controls, state: State, seen: Look) -> Look:
    """At the end of the shadow: how alike both models answered the same requests, before one caller sees the challenger."""
    found = shadow_comparison.measure(
        controls.signals.predictions(state.model, state.step_began), spec.rollout.threshold
    )
    if found:
        event = ShadowCompared(run=state.run, version=state.version, sentence=found.sentence, **asdict(found))
        controls.ledger.append(state.model, event)
    checks = shadow_comparison.judge(spec.rollout.guards, found)
    verdict = Verdict(seen.verdict.subject, (*seen.verdict.checks, *checks))
    if reasons := Verdict("agreement", checks).reasons:
        return Look("roll back", verdict, f"shadow: {'; '.join(reasons)}")
    return replace(seen, verdict=verdict)


def _with_values(spec: ModelSpec, controls: Controls, state: State, now: datetime) -> State:
    """With what the requests of each step said, where a guard asks for it and it is time to read again."""
    if not spec.rollout.guards.need_scores or (state.read_at and now - state.read_at < READ_EVERY):
        return state
    starts = [at and at + spec.rollout.warm_up for at in state.entered]
    ends = [*state.entered[1:], now]
    spans = [(start or end or now, end or now) for start, end in zip(starts, ends, strict=True)]
    found = request_metrics.read(spec, controls.signals, controls.tables(spec), spans)
    return replace(state, values=tuple(found), read_at=now)


def _go_back(controls: Controls, state: State, seen: Look) -> Look:
    rollout.rollback(state.model, controls, seen.sentence)
    return seen


def _absent(state: State, weight: int) -> Iterator[Check]:
    """Fails a canary that gets nothing: the gateway has taken it out of its rotation."""
    share = state.requests * weight / 100
    if 0 < weight < 100 and _canary(state).requests == 0 and share >= NOTICED:
        sentence = f"the canary answered none of about {share:.0f} requests that were its share"
        yield Check("traffic", Outcome.FAIL, sentence, value=0.0, bound=share)


def _span(state: State, step: int, alone: bool) -> Stratum:
    values = state.values[step] if step < len(state.values) else {}
    stable, challenger = (_arm(state.sums[step].get(s, NONE), values.get(s, Values())) for s in ("stable", "canary"))
    return Stratum(challenger, None if alone else stable)


def _canary(state: State) -> ArmCounts:
    return state.traffic.get("canary", NONE)


def _arm(counts: ArmCounts, values: Values) -> VariantTraffic:
    return VariantTraffic(counts.requests, counts.errors, counts.slow, **vars(values))


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
