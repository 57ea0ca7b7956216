"""What a rollout judges by, counts, labels and agreement, and what it records of that."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from include.domain.events import PowerChecked, ShadowCompared, StepAnalysed
from include.ports.traffic import Routes
from include.stages.release import promotion
from include.stages.rollout import request_metrics, rollout
from tests.unit.rollout.scenario import PLAN, RolloutScenario
from tests.unit.toy import toy


def test_every_look_is_evidence_in_the_ledger(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.pass_step(1)
    last = scenario.ledger.read("toy", StepAnalysed)[-1]
    assert last.decision == "go on"
    assert last.counts == {"stable": (20_000, 0, 0), "canary": (20_000, 0, 0)}
    assert {check.name for check in last.verdict.checks} == {"error_rate", "slow_share"}


def test_who_was_champion_on_a_date_and_why(scenario: RolloutScenario) -> None:
    started = scenario.now
    scenario.ledger.clock = lambda: scenario.now
    scenario.begin()
    scenario.pass_all()
    scenario.promote()
    assert promotion.promotion_at("toy", started, scenario.ledger) is None
    champion = promotion.promotion_at("toy", scenario.now, scenario.ledger)
    assert champion is not None
    assert (champion.version, champion.previous) == ("2", "1")
    assert champion.reason == "passed every step of rollout run-1"


def test_many_looks_at_the_same_evidence_are_one_row(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("stable", 90)
    scenario.signals.traffic("canary", 10)
    for _ in range(20):
        scenario.analyse()
    assert len(scenario.ledger.read("toy", StepAnalysed)) == 1


def test_the_shadow_ends_with_how_alike_the_models_answered_the_same_requests(scenario: RolloutScenario) -> None:
    scores = {"stable": [0.1, 0.2, 0.6, 0.9], "canary": [0.1, 0.2, 0.4, 0.8]}
    scenario.signals.logged = [
        {"id": f"r{i}", "slot": slot, "score": score} for slot in scores for i, score in enumerate(scores[slot])
    ]
    scenario.signals.logged.append({"id": "alone", "slot": "stable", "score": 1.0})
    scenario.begin()
    scenario.pass_step(0)
    (event,) = scenario.ledger.read("toy", ShadowCompared)
    assert (event.requests, event.flipped) == (4, 0.25)
    assert event.rank_correlation == pytest.approx(1)
    assert event.mean_difference == pytest.approx(-0.075)
    assert "25.0% would be decided otherwise" in event.sentence


GUARDED: dict[str, Any] = {**PLAN, "guards": {"logloss": 0.1, "calibration": 0.1}}


def answered(scenario: RolloutScenario, slot: str, scores: list[float], labels: list[int | None], at: float) -> None:
    """Requests of a slot, `at` seconds after now, whose labels came back by feedback where they are known."""
    for score, label in zip(scores, labels, strict=True):
        number = f"{slot}-{len(scenario.signals.logged)}"
        scenario.signals.logged.append(
            {"id": number, "slot": slot, "score": score, "at": scenario.now.timestamp() + at}
        )
        if label is not None:
            scenario.signals.labels.append({"id": number, "label": float(label)})


def both(scenario: RolloutScenario, challenger: float) -> None:
    """A thousand requests to each slot, a fifth of them positive; the champion says so, the challenger its own."""
    truth: list[int | None] = [1, 0, 0, 0, 0] * 200
    for slot, score in (("stable", 0.2), ("canary", challenger)):
        answered(scenario, slot, [score] * 1000, truth, at=0.5)
        scenario.signals.traffic(slot, 1000)


@pytest.mark.parametrize(("score", "decision"), [(0.2, "go on"), (0.6, "roll back")])
def test_labels_as_they_come_decide_where_a_guard_asks_for_them(
    scenario: RolloutScenario, score: float, decision: str
) -> None:
    scenario.spec = toy(rollout=GUARDED)
    scenario.begin()
    scenario.warm(1)
    both(scenario, score)
    result = scenario.analyse(10)
    assert result.decision == decision, result.sentence
    assert ("logloss" in result.sentence) is (decision == "roll back")


def test_without_labels_a_guard_on_logloss_never_passes(scenario: RolloutScenario) -> None:
    scenario.spec = toy(rollout=GUARDED)
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("stable", 20_000)
    scenario.signals.traffic("canary", 20_000)
    result = scenario.analyse(60)
    assert result.decision == "wait"
    assert "logloss: too little traffic or too few labels to judge" in result.sentence


def test_labels_of_an_earlier_step_that_come_late_count_for_it(scenario: RolloutScenario) -> None:
    scenario.spec = toy(rollout={**GUARDED, "guards": {"logloss": 0.1}})
    scenario.begin()
    scenario.warm(1)
    both(scenario, 0.2)
    late, scenario.signals.labels = scenario.signals.labels, []
    scenario.now += timedelta(seconds=30)
    scenario.enter(2)
    assert scenario.analyse(6).decision == "wait"
    scenario.signals.labels = late
    scenario.signals.traffic("stable", 1000)
    scenario.signals.traffic("canary", 1000)
    assert scenario.analyse(10).decision == "go on"
    assert scenario.state.step_metrics[1]["canary"].logloss.n == 1000


def test_landed_labels_are_joined_by_key(scenario: RolloutScenario) -> None:
    keys, labels = [str(n) for n in range(500)], pa.array([1, 0] * 250, pa.int8())
    landed = pa.table({"key": keys, "y": labels, "window": ["2026-03-01"] * 500})
    scenario.tables.append("landed", landed, "run", "once")
    event = datetime(2026, 3, 1, 5, tzinfo=UTC)
    scenario.signals.logged = [
        {"id": f"r{n}", "slot": "canary", "score": 0.5, "at": 10.0, "key": str(n), "time": event} for n in range(600)
    ]
    span = (datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(100, UTC))
    (by_slot,) = request_metrics.read(scenario.spec, scenario.signals, scenario.tables, [span])
    assert (by_slot["canary"].score.n, by_slot["canary"].bias.n, by_slot["canary"].bias.mean) == (600, 500, 0.0)


@pytest.mark.parametrize(
    ("guard", "bound", "sentence"),
    [
        ("flipped", 0.2, "flipped is 0.25 over the mirrored requests; it must be at most 0.2"),
        ("score_difference", 0.1, "score_difference is 0.125"),
        ("rank_correlation", 0.99, "rank_correlation is 0.9487 over the mirrored requests; it must be at least 0.99"),
    ],
)
def test_a_challenger_that_answers_too_much_otherwise_goes_back_before_one_caller_sees_it(
    scenario: RolloutScenario, guard: str, bound: float, sentence: str
) -> None:
    scenario.spec = toy(rollout={**PLAN, "threshold": 0.3, "guards": {guard: bound}})
    for slot, scores in {"stable": [0.1, 0.2, 0.6, 0.9], "canary": [0.1, 0.2, 0.2, 0.8]}.items():
        for n, score in enumerate(scores):
            scenario.signals.logged.append({"id": f"r{n}", "slot": slot, "score": score})
    scenario.begin()
    result = scenario.pass_step(0)
    assert result.decision == "roll back"
    assert sentence in result.sentence
    assert scenario.router.routes == Routes()


def test_agreement_that_was_asked_for_and_could_not_be_measured_is_no_pass(scenario: RolloutScenario) -> None:
    scenario.spec = toy(rollout={**PLAN, "guards": {"rank_correlation": 0.9}})
    scenario.begin()
    assert "rank_correlation could not be measured" in scenario.pass_step(0).sentence


def test_the_plan_is_weighed_against_the_present_traffic(scenario: RolloutScenario) -> None:
    quiet = rollout.check_power(scenario.spec, scenario.services, "run-1", scenario.now)
    assert "cannot be told" in quiet.checks[0].sentence
    answered(scenario, "stable", [0.2] * 6000, [None] * 6000, at=-30)
    scenario.signals.traffic("stable", 6000, errors=6)
    busy = rollout.check_power(scenario.spec, scenario.services, "run-1", scenario.now)
    assert "at 100 requests/s, takes about" in busy.checks[0].sentence
    assert [event.verdict.outcome for event in scenario.ledger.read("toy", PowerChecked)] == [
        "inconclusive",
        busy.outcome,
    ]
