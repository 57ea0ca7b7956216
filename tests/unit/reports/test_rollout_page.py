"""What a rollout judges by: counts, labels, agreement; and what it leaves to be looked at."""

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from include.domain.events import PowerChecked, ShadowCompared, StepAnalysed
from include.ports.traffic import Routes
from include.stages.release import promotion
from include.stages.rollout import request_metrics, rollout
from tests.unit.rollout.rolling import PLAN, World
from tests.unit.toy import toy


def test_every_look_is_evidence_in_the_ledger(world: World) -> None:
    world.begin()
    world.pass_step(1)
    last = world.ledger.read("toy", StepAnalysed)[-1]
    assert last.decision == "go on"
    assert last.counts == {"stable": (20_000, 0, 0), "canary": (20_000, 0, 0)}
    assert {check.name for check in last.verdict.checks} == {"error_rate", "slow_share"}


def test_who_was_champion_on_a_date_and_why(world: World) -> None:
    started = world.now
    world.ledger.clock = lambda: world.now
    world.begin()
    world.pass_all()
    world.promote()
    assert promotion.promotion_at("toy", started, world.ledger) is None
    champion = promotion.promotion_at("toy", world.now, world.ledger)
    assert champion is not None
    assert (champion.version, champion.previous) == ("2", "1")
    assert champion.reason == "passed every step of rollout run-1"


def test_many_looks_at_the_same_evidence_are_one_row(world: World) -> None:
    world.begin()
    world.warm(1)
    world.signals.traffic("stable", 90)
    world.signals.traffic("canary", 10)
    for _ in range(20):
        world.look()
    assert len(world.ledger.read("toy", StepAnalysed)) == 1


def test_the_evidence_of_a_rollout_is_attached_to_the_run_that_made_the_model(world: World) -> None:
    world.ledger.clock = lambda: world.now
    world.begin()
    world.pass_all()
    world.promote()
    attached = world.registry.attached["m2/rollout/run-1"]
    assert attached == ["rollout.html", "error_rate.svg", "slow_share.svg"]
    page = (world.folder / "toy-run-1" / "rollout.html").read_text()
    traffic = "<td>50 %</td><td>canary</td><td>20,000</td><td>0</td><td>0</td>"
    for said in ("began (version 2)", "go on: 10 %", "promoted (version 2)", traffic, "<svg"):
        assert said in page
    plot = ElementTree.parse(world.folder / "toy-run-1" / "error_rate.svg")
    assert "50 %" in "".join(plot.getroot().itertext())


def test_the_shadow_ends_with_how_alike_the_models_answered_the_same_requests(world: World) -> None:
    scores = {"stable": [0.1, 0.2, 0.6, 0.9], "canary": [0.1, 0.2, 0.4, 0.8]}
    world.signals.logged = [
        {"id": f"r{i}", "slot": slot, "score": score} for slot in scores for i, score in enumerate(scores[slot])
    ]
    world.signals.logged.append({"id": "alone", "slot": "stable", "score": 1.0})
    world.begin()
    world.pass_step(0)
    (event,) = world.ledger.read("toy", ShadowCompared)
    assert (event.requests, event.flipped) == (4, 0.25)
    assert event.rank_correlation == pytest.approx(1)
    assert event.mean_difference == pytest.approx(-0.075)
    assert "25.0% would be decided otherwise" in event.sentence


GUARDED: dict[str, Any] = {**PLAN, "guards": {"logloss": 0.1, "calibration": 0.1}}


def answered(world: World, slot: str, scores: list[float], labels: list[int | None], at: float) -> None:
    """Requests of a slot, `at` seconds after now, whose labels came back by feedback where they are known."""
    for score, label in zip(scores, labels, strict=True):
        number = f"{slot}-{len(world.signals.logged)}"
        world.signals.logged.append({"id": number, "slot": slot, "score": score, "at": world.now.timestamp() + at})
        if label is not None:
            world.signals.labels.append({"id": number, "label": float(label)})


def both(world: World, challenger: float) -> None:
    """A thousand requests to each slot, a fifth of them positive; the champion says so, the challenger its own."""
    truth: list[int | None] = [1, 0, 0, 0, 0] * 200
    for slot, score in (("stable", 0.2), ("canary", challenger)):
        answered(world, slot, [score] * 1000, truth, at=0.5)
        world.signals.traffic(slot, 1000)


@pytest.mark.parametrize(("score", "decision"), [(0.2, "go on"), (0.6, "roll back")])
def test_labels_as_they_come_decide_where_a_guard_asks_for_them(world: World, score: float, decision: str) -> None:
    world.spec = toy(rollout=GUARDED)
    world.begin()
    world.warm(1)
    both(world, score)
    seen = world.look(10)
    assert seen.decision == decision, seen.sentence
    assert ("logloss" in seen.sentence) is (decision == "roll back")


def test_without_labels_a_guard_on_logloss_never_passes(world: World) -> None:
    world.spec = toy(rollout=GUARDED)
    world.begin()
    world.warm(1)
    world.signals.traffic("stable", 20_000)
    world.signals.traffic("canary", 20_000)
    seen = world.look(60)
    assert seen.decision == "wait"
    assert "logloss: too little traffic or too few labels to judge" in seen.sentence


def test_labels_of_an_earlier_step_that_come_late_count_for_it(world: World) -> None:
    world.spec = toy(rollout={**GUARDED, "guards": {"logloss": 0.1}})
    world.begin()
    world.warm(1)
    both(world, 0.2)
    late, world.signals.labels = world.signals.labels, []
    world.now += timedelta(seconds=30)
    world.enter(2)
    assert world.look(6).decision == "wait"
    world.signals.labels = late
    world.signals.traffic("stable", 1000)
    world.signals.traffic("canary", 1000)
    assert world.look(10).decision == "go on"
    assert world.state.values[1]["canary"].logloss.n == 1000


def test_landed_labels_are_joined_by_key(world: World) -> None:
    keys, labels = [str(n) for n in range(500)], pa.array([1, 0] * 250, pa.int8())
    landed = pa.table({"key": keys, "y": labels, "window": ["2026-03-01"] * 500})
    world.tables.append("landed", landed, "run", "once")
    event = datetime(2026, 3, 1, 5, tzinfo=UTC)
    world.signals.logged = [
        {"id": f"r{n}", "slot": "canary", "score": 0.5, "at": 10.0, "key": str(n), "time": event} for n in range(600)
    ]
    span = (datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(100, UTC))
    (found,) = request_metrics.read(world.spec, world.signals, world.tables, [span])
    assert (found["canary"].score.n, found["canary"].bias.n, found["canary"].bias.mean) == (600, 500, 0.0)


@pytest.mark.parametrize(
    ("guard", "bound", "said"),
    [
        ("flipped", 0.2, "flipped is 0.25 over the mirrored requests; it must be at most 0.2"),
        ("score_difference", 0.1, "score_difference is 0.125"),
        ("rank_correlation", 0.99, "rank_correlation is 0.9487 over the mirrored requests; it must be at least 0.99"),
    ],
)
def test_a_challenger_that_answers_too_much_otherwise_goes_back_before_one_caller_sees_it(
    world: World, guard: str, bound: float, said: str
) -> None:
    world.spec = toy(rollout={**PLAN, "threshold": 0.3, "guards": {guard: bound}})
    for slot, scores in {"stable": [0.1, 0.2, 0.6, 0.9], "canary": [0.1, 0.2, 0.2, 0.8]}.items():
        for n, score in enumerate(scores):
            world.signals.logged.append({"id": f"r{n}", "slot": slot, "score": score})
    world.begin()
    seen = world.pass_step(0)
    assert seen.decision == "roll back"
    assert said in seen.sentence
    assert world.router.routes == Routes()


def test_agreement_that_was_asked_for_and_could_not_be_measured_is_no_pass(world: World) -> None:
    world.spec = toy(rollout={**PLAN, "guards": {"rank_correlation": 0.9}})
    world.begin()
    assert "rank_correlation could not be measured" in world.pass_step(0).sentence


def test_the_plan_is_weighed_against_the_present_traffic(world: World) -> None:
    quiet = rollout.weigh(world.spec, world.controls, "run-1", world.now)
    assert "cannot be told" in quiet.checks[0].sentence
    answered(world, "stable", [0.2] * 6000, [None] * 6000, at=-30)
    world.signals.traffic("stable", 6000, errors=6)
    busy = rollout.weigh(world.spec, world.controls, "run-1", world.now)
    assert "at 100 requests/s, takes about" in busy.checks[0].sentence
    assert [event.verdict.outcome for event in world.ledger.read("toy", PowerChecked)] == ["inconclusive", busy.outcome]
