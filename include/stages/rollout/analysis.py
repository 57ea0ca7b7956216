"""One analysis of a running rollout: read what was counted, judge it, record the evidence, and act on the decision.

What decides is pure and lies in `domain/rollout`: `canary.judge` turns traffic into a verdict, `decision.decide` turns
the verdict into what happens to the step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta

from include.domain.errors import Unavailable
from include.domain.events import ShadowCompared, StepAnalysed
from include.domain.rollout import canary
from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.decision import Analysis, StepDecision, StepProgress, decide
from include.domain.rollout.variants import RequestCounts, Stratum, VariantTraffic
from include.domain.verdict import Check, Outcome, Verdict
from include.spec.model_spec import ModelSpec
from include.stages.rollout import request_metrics, rollout, shadow_comparison, state_file
from include.stages.rollout.request_metrics import RequestMetrics
from include.stages.rollout.services import RolloutServices
from include.stages.rollout.state import RolloutState
from include.stages.rollout.steps import hold_of, steps_of

#: A slot that got nothing where so many requests were its share is out of the gateway's rotation.
MIN_MISSED_REQUESTS = 50
#: How often the prediction log and the labels are read, because reading them costs more than an analysis may.
METRICS_EVERY = timedelta(seconds=10)


def analyse(spec: ModelSpec, services: RolloutServices, run: str, now: datetime) -> Analysis:
    """Judge the present step of the run's rollout and act on it: when `roll back` is returned, the traffic is back.

    It is cheap and keeps nothing in memory: a caller that was killed analyses again from anywhere. An analysis that saw a
    new request, or that decides, is a row of the ledger. Raises Conflict when the run's rollout has ended, UserMistake
    when none began.
    """
    state = rollout.running_state(spec.name, services, run)
    pending = state_file.latest_action(services.folder, state)
    counts, error = _request_counts(spec, services)
    warm = now - (state.step_began_at or now) >= spec.rollout.warm_up
    state = _with_metrics(spec, services, state.with_reading(counts, warm=warm), now)
    has_new_requests = state.requests > state.recorded_requests
    state = replace(state, recorded_requests=state.requests)
    if not _saved(services, state):
        return Analysis(StepDecision.WAIT, Verdict("traffic", ()), "another analysis or a person was faster")
    analysis = decide(spec.rollout, progress_of(spec, state, now), judge(spec, state), pending)
    by_a_person = pending is not None and pending.action is RolloutAction.PROMOTE
    if state.step == 0 and analysis.decision is StepDecision.GO_ON and not by_a_person:
        analysis = _with_shadow_comparison(spec, services, state, analysis)
    analysis = replace(analysis, sentence=analysis.sentence + error)
    if has_new_requests or analysis.decision is not StepDecision.WAIT:
        _record(spec, services, state, analysis)
    if analysis.decision is StepDecision.ROLL_BACK:
        rollout.rollback(state.model, services, analysis.sentence)
    return analysis


def judge(spec: ModelSpec, state: RolloutState) -> Verdict:
    """Return the verdict on the traffic so far, against the champion's at the same time.

    Mirrored and live traffic are judged apart, and so is the last step, which has no champion beside it.
    """
    weights = [step.routes.canary for step in steps_of(spec.rollout)]
    without_stable = weights[state.step] == 100
    live_steps = [step for step in range(1, state.step + 1) if weights[step] < 100]
    judged_steps = [state.step] if without_stable or state.step == 0 else live_steps
    verdict = canary.judge(spec.rollout, [_stratum(state, step, without_stable) for step in judged_steps])
    return Verdict(verdict.subject, (*_missing_traffic(state, weights[state.step]), *verdict.checks))


def progress_of(spec: ModelSpec, state: RolloutState, now: datetime) -> StepProgress:
    """Return how far the rollout's present step has come."""
    step = steps_of(spec.rollout)[state.step]
    return StepProgress(
        name=step.name,
        mirrored=step.routes.mirror,
        hold=hold_of(spec.rollout, state),
        elapsed=now - (state.step_began_at or now),
        rollout_elapsed=now - state.began_at,
        canary_requests=state.canary_requests,
    )


def _request_counts(spec: ModelSpec, services: RolloutServices) -> tuple[Mapping[str, RequestCounts] | None, str]:
    """Return what was counted; or None, and why as the end of a sentence."""
    try:
        return services.signals.request_counts(spec.name, spec.rollout.guards.slow_ms), ""
    except Unavailable as error:
        return None, f" (counts not read: {error})"


def _with_metrics(spec: ModelSpec, services: RolloutServices, state: RolloutState, now: datetime) -> RolloutState:
    """Return the state with each step's scores and labels, where a guard asks for them and it is time to read again."""
    read_at = state.metrics_read_at
    if not spec.rollout.guards.need_scores or (read_at and now - read_at < METRICS_EVERY):
        return state
    starts = [at and at + spec.rollout.warm_up for at in state.entered_at]
    ends = [*state.entered_at[1:], now]
    intervals = [(start or end or now, end or now) for start, end in zip(starts, ends, strict=True)]
    metrics = request_metrics.read(spec, services.signals, services.tables(spec), intervals)
    return replace(state, step_metrics=tuple(metrics), metrics_read_at=now)


def _saved(services: RolloutServices, state: RolloutState) -> bool:
    """Save the state unless somebody changed it since it was read; whether it was saved."""
    with state_file.locked(services.folder, state.model):
        stored = state_file.load(services.folder, state.model)
        unchanged = (state.phase, state.step, state.analyses - 1)
        if stored is None or (stored.phase, stored.step, stored.analyses) != unchanged:
            return False
        state_file.save(services.folder, state)
        return True


def _with_shadow_comparison(
    spec: ModelSpec, services: RolloutServices, state: RolloutState, analysis: Analysis
) -> Analysis:
    """Judge, before one caller sees the challenger, how alike both models scored the mirrored requests."""
    predictions = services.signals.predictions(state.model, state.step_began_at)
    agreement = shadow_comparison.measure(predictions, spec.rollout.threshold)
    if agreement:
        event = ShadowCompared(run=state.run, version=state.version, sentence=agreement.sentence, **asdict(agreement))
        services.ledger.append(state.model, event)
    checks = shadow_comparison.judge(spec.rollout.guards, agreement)
    verdict = Verdict(analysis.verdict.subject, (*analysis.verdict.checks, *checks))
    if reasons := Verdict("agreement", checks).reasons:
        return Analysis(StepDecision.ROLL_BACK, verdict, f"shadow: {'; '.join(reasons)}")
    return replace(analysis, verdict=verdict)


def _record(spec: ModelSpec, services: RolloutServices, state: RolloutState, analysis: Analysis) -> None:
    event = StepAnalysed(
        run=state.run,
        version=state.version,
        step=steps_of(spec.rollout)[state.step].name,
        number=state.analyses,
        decision=analysis.decision,
        sentence=analysis.sentence,
        verdict=analysis.verdict,
        counts=state.traffic,
    )
    services.ledger.append(spec.name, event)


def _missing_traffic(state: RolloutState, weight: int) -> Iterator[Check]:
    """Fail a canary that gets nothing: the gateway has taken it out of its rotation."""
    share = state.requests * weight / 100
    if 0 < weight < 100 and state.canary_requests == 0 and share >= MIN_MISSED_REQUESTS:
        sentence = f"the canary answered none of about {share:.0f} requests that were its share"
        yield Check("traffic", Outcome.FAIL, sentence, value=0.0, bound=share)


def _stratum(state: RolloutState, step: int, without_stable: bool) -> Stratum:
    metrics = state.step_metrics[step] if step < len(state.step_metrics) else {}
    stable, canary_traffic = (
        _traffic(state.step_counts[step].get(slot, RequestCounts()), metrics.get(slot, RequestMetrics()))
        for slot in ("stable", "canary")
    )
    return Stratum(canary_traffic, None if without_stable else stable)


def _traffic(counts: RequestCounts, metrics: RequestMetrics) -> VariantTraffic:
    return VariantTraffic(counts.requests, counts.errors, counts.slow, **vars(metrics))
