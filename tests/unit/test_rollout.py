"""A rollout goes on from wherever it was killed, ends with one model serving everyone, and goes back by itself."""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.steering import Word
from include.ports import ArmCounts, Routes
from include.spec import ModelSpec
from include.stages import (
    model_page,
    promotion,
    rollout,
    rollout_evidence,
    rollout_look,
    rollout_state,
    rollout_values,
    steering,
)
from include.stages.rollout_look import Look
from include.stages.rollout_state import Phase
from tests.fakes import FakeLedger, FakeRegistry, FakeRouter, FakeSignals, FakeSlots, FakeTables
from tests.unit.toy import toy

PLAN: dict[str, Any] = {
    "shadow": timedelta(minutes=1),
    "steps": [
        {"weight": 10, "hold": timedelta(minutes=10)},
        {"weight": 50, "hold": timedelta(minutes=10)},
        {"weight": 100},
    ],
    "warm_up": timedelta(seconds=5),
    "min_requests": 500,
}
LAST = 3


@dataclass
class World:
    folder: Path
    spec: ModelSpec
    now: datetime = datetime(2026, 3, 1, tzinfo=UTC)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    router: FakeRouter = field(default_factory=FakeRouter)
    slots: FakeSlots = field(default_factory=FakeSlots)
    signals: FakeSignals = field(default_factory=FakeSignals)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    tables: FakeTables = field(default_factory=lambda: FakeTables({}))
    run: str = "run-1"

    @property
    def controls(self) -> rollout.Controls:
        return rollout.Controls(self.folder, self.router, self.signals, self.ledger, lambda _: self.tables)

    def begin(self, version: str = "2", run: str = "run-1") -> rollout_state.State:
        self.run = run
        return rollout.begin(
            self.spec, self.controls, version, registry=self.registry, slots=self.slots, run=run, now=self.now
        )

    def enter(self, step: int) -> str | None:
        return rollout.enter(self.spec, self.controls, self.run, step, self.now)

    def look(self, seconds: float = 1) -> Look:
        self.now += timedelta(seconds=seconds)
        return rollout_look.look(self.spec, self.controls, self.run, self.now)

    def warm(self, step: int) -> None:
        """Enter the step and look until its traffic counts."""
        assert self.enter(step) is None
        assert self.look(6).decision == "wait"

    def pass_step(self, step: int) -> Look:
        self.warm(step)
        self.signals.traffic("stable", 20_000)
        self.signals.traffic("canary", 20_000)
        return self.look(120)

    def pass_all(self) -> None:
        for step in range(LAST):
            self.pass_step(step)
        self.enter(LAST)
        self.look()

    def promote(self) -> str:
        return rollout.promote(self.spec, self.controls, self.run, self.registry, self.slots)

    def say(self, word: Word, why: str = "") -> None:
        steering.obey("toy", word, "ada", why, controls=self.controls, registry=self.registry, now=self.now)

    @property
    def state(self) -> rollout_state.State:
        state = rollout_state.load(self.folder, "toy")
        assert state is not None
        return state

    @property
    def phase(self) -> Phase:
        return self.state.phase


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 is champion, version 2 is to replace it."""
    world = World(tmp_path, toy(rollout=PLAN))
    world.registry.add("toy", 2)
    world.registry.tag("toy", "2", {"mlflow_run_id": "m2"})
    world.registry.aliases["champion"] = "1"
    return world


def test_a_good_challenger_becomes_champion_step_by_step(world: World) -> None:
    world.begin()
    assert world.registry.aliases == {"champion": "1", "challenger": "2"}
    decisions = [world.pass_step(step).decision for step in range(3)]
    assert decisions == ["go on", "go on", "go on"]
    assert world.enter(LAST) is None
    assert world.look().decision == "go on"
    assert world.registry.aliases["champion"] == "1", "champion moves only when the rollout has finished"
    assert world.promote() == "2"
    assert world.registry.aliases == {"champion": "2", "previous": "1"}
    assert world.router.applied == [Routes(0, mirror=True), Routes(10), Routes(50), Routes(100), Routes()]
    assert world.slots.awaited == [("canary", "2"), ("canary", "2"), ("stable", "2")]


def test_a_first_release_skips_what_cannot_be_compared_and_is_judged_alone(world: World) -> None:
    world.registry.aliases.clear()
    world.begin("1")
    assert all("first release" in (world.enter(step) or "") for step in range(LAST))
    world.warm(LAST)
    world.signals.traffic("canary", 2_000)
    assert world.look().decision == "go on"
    assert world.promote() == "1"
    assert world.registry.aliases == {"champion": "1"}
    assert world.router.applied == [Routes(100), Routes()]


def test_errors_of_the_challenger_send_traffic_back_within_the_look(world: World) -> None:
    world.begin()
    world.warm(1)
    world.signals.traffic("stable", 9_000)
    world.signals.traffic("canary", 1_000, errors=100)
    seen = world.look()
    assert seen.decision == "roll back"
    assert "error" in seen.sentence
    assert world.router.routes == Routes()
    assert world.phase is Phase.ROLLED_BACK
    with pytest.raises(Conflict, match="rolled back"):
        world.look()
    rollout.close("toy", world.controls, world.registry)
    assert world.registry.aliases == {"champion": "1"}
    assert "error" in world.registry.version("toy", "2").tags["rollout_reason"]


def test_mirrored_traffic_holds_for_the_whole_shadow_though_it_looks_good_at_once(world: World) -> None:
    world.begin()
    world.warm(0)
    world.signals.traffic("stable", 50_000)
    world.signals.traffic("canary", 50_000)
    assert world.look(10).decision == "wait"
    assert world.look(60).decision == "go on"


def test_evidence_of_earlier_steps_does_not_spare_a_step_its_own_traffic(world: World) -> None:
    world.begin()
    world.pass_step(1)
    world.warm(2)
    world.signals.traffic("stable", 400)
    world.signals.traffic("canary", 400)
    assert world.look().decision == "wait"
    world.signals.traffic("canary", 200)
    assert world.look().decision == "go on"


def test_no_traffic_is_inconclusive_and_goes_back_at_the_end_of_the_hold(world: World) -> None:
    world.begin()
    world.warm(1)
    assert world.look(60).decision == "wait"
    seen = world.look(600)
    assert seen.decision == "roll back"
    assert "inconclusive" in seen.sentence


def test_an_inconclusive_step_waits_for_a_person_where_the_spec_says_hold(world: World) -> None:
    world.spec = toy(rollout={**PLAN, "on_inconclusive": "hold"})
    world.begin()
    world.warm(1)
    assert "held for a person" in world.look(700).sentence
    assert world.router.routes == Routes(10)
    world.say(Word.ABORT)
    assert world.router.routes == Routes(), "at once, not at the next look"
    with pytest.raises(Conflict, match="aborted by ada"):
        world.look()


def test_a_pause_holds_the_step_however_long_until_a_person_resumes(world: World) -> None:
    world.begin()
    world.warm(1)
    world.say(Word.PAUSE)
    world.signals.traffic("stable", 20_000)
    world.signals.traffic("canary", 20_000)
    assert "paused by ada" in world.look(7000).sentence
    world.say(Word.RESUME)
    assert world.look().decision == "go on"


def test_a_guard_that_fails_sends_traffic_back_though_the_rollout_is_paused(world: World) -> None:
    world.begin()
    world.warm(1)
    world.say(Word.PAUSE)
    world.signals.traffic("stable", 9_000)
    world.signals.traffic("canary", 1_000, errors=1_000)
    assert world.look().decision == "roll back"


def test_a_person_can_promote_now(world: World) -> None:
    world.ledger.clock = lambda: world.now
    world.say(Word.ROLL_BACK, "to no rollout")
    world.ledger.append("toy", "word", word="pause", by="ada", reason="of an older release, which kept no run")
    world.begin()
    world.pass_all()
    world.enter(LAST)
    world.say(Word.PROMOTE, "seen enough")
    assert world.look().sentence == "100 %: promoted by ada: seen enough"
    world.promote()
    assert world.ledger.read("toy", "champion")[-1]["reason"] == "promoted by ada: seen enough"
    assert "ada says promote: seen enough" in rollout_evidence.page("toy", "run-1", world.ledger)


@pytest.mark.parametrize("word", [Word.ROLL_BACK, Word.ABORT])
def test_what_a_person_says_sends_traffic_back_and_is_kept_with_its_reason(world: World, word: Word) -> None:
    world.begin()
    world.enter(1)
    world.say(word, "too many calls")
    assert world.router.routes == Routes()
    assert world.state.reason.endswith("ada: too many calls")
    (row,) = world.ledger.read("toy", "word")
    assert (row["word"], row["by"], row["reason"]) == (word, "ada", "too many calls")


def test_the_models_page_says_how_the_rollout_stands_with_a_button_for_each_word_that_can_be_said_now(
    world: World,
) -> None:
    def page() -> str:
        state = rollout_state.load(world.folder, "toy")
        return model_page.page("toy", "Is it?", "nobody", state, world.ledger.read("toy", "look"), [], [])

    def buttons() -> set[str]:
        return set(re.findall(r'<button name="word" value="([^"]+)"', page()))

    assert buttons() == {"roll back", "restore the previous champion"}
    world.ledger.clock = lambda: world.now
    world.begin()
    world.warm(1)
    world.signals.traffic("canary", 10)
    world.look()
    assert buttons() == set(Word)
    assert "version 2: running; 10 %: 7 s of at most 600 s" in page()


def test_words_are_for_the_rollout_they_were_said_to(world: World) -> None:
    world.begin()
    world.warm(1)
    world.say(Word.PAUSE)
    world.say(Word.ABORT)
    for word in (Word.PAUSE, Word.ABORT):
        with pytest.raises(UserMistake, match=f"nothing to {word}"):
            world.say(word)
    world.begin(run="run-2")
    world.warm(1)
    assert world.look().decision == "wait"


def test_a_rollout_takes_no_longer_than_the_plan_allows(world: World) -> None:
    world.spec = toy(rollout={**PLAN, "on_inconclusive": "hold", "max_duration": timedelta(minutes=20)})
    world.begin()
    world.warm(1)
    assert world.look(1201).decision == "roll back"
    assert world.router.routes == Routes()


def test_a_canary_that_the_gateway_took_out_fails_though_it_shows_no_error(world: World) -> None:
    world.begin()
    world.warm(2)
    world.signals.traffic("stable", 1_000)
    seen = world.look()
    assert seen.decision == "roll back"
    assert "answered none of about 500 requests" in seen.sentence


def test_warm_up_is_not_judged(world: World) -> None:
    world.begin()
    world.enter(1)
    world.signals.traffic("canary", 1_000, errors=1_000)
    assert world.look(2).decision == "wait"
    assert world.look(4).decision == "wait"


def test_a_gateway_that_starts_anew_loses_no_evidence(world: World) -> None:
    world.begin()
    world.warm(1)
    world.signals.traffic("stable", 900)
    world.signals.traffic("canary", 100)
    world.look()
    world.signals.arms = {"stable": ArmCounts(90, 0, 0), "canary": ArmCounts(10, 0, 0)}
    world.look()
    state = rollout_state.load(world.folder, "toy")
    assert state is not None
    assert state.traffic == {"stable": ArmCounts(990, 0, 0), "canary": ArmCounts(110, 0, 0)}


def test_a_gateway_whose_counters_do_not_answer_is_waited_for(world: World) -> None:
    world.begin()
    world.warm(1)
    world.signals.down = True
    seen = world.look()
    assert seen.decision == "wait"
    assert "do not answer" in seen.sentence


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_killed_step_goes_on_with_its_clock_and_its_counts(world: World, step: int) -> None:
    world.begin()
    world.warm(step)
    world.signals.traffic("stable", 100)
    world.signals.traffic("canary", 100)
    world.look()
    before = rollout_state.load(world.folder, "toy")
    world.now += timedelta(seconds=30)
    world.begin()
    world.enter(step)
    assert rollout_state.load(world.folder, "toy") == before
    assert world.router.routes == rollout.plan(world.spec)[step].routes


@pytest.mark.parametrize("stuck", ["canary", "stable"])
def test_a_killed_promotion_is_finished_by_the_next_try(world: World, stuck: str) -> None:
    world.begin()
    world.pass_all()
    world.slots.stuck = {stuck}
    with pytest.raises(Unavailable):
        world.promote()
    assert world.router.routes == Routes(100), "the canary serves everyone until stable has the new version"
    world.slots.stuck = set()
    world.promote()
    world.promote()
    assert world.registry.aliases == {"champion": "2", "previous": "1"}
    assert [row["version"] for row in world.ledger.read("toy", "champion")] == ["2"]


def test_nothing_is_promoted_before_the_last_step(world: World) -> None:
    world.begin()
    world.pass_step(1)
    with pytest.raises(UserMistake, match="last step"):
        world.promote()
    assert world.registry.aliases["champion"] == "1"


def test_promotion_stops_when_somebody_else_was_made_champion(world: World) -> None:
    world.registry.add("toy", 1)
    world.begin()
    world.pass_all()
    world.registry.aliases["champion"] = "3"
    with pytest.raises(Conflict):
        world.promote()
    assert world.registry.aliases["champion"] == "3"


def test_one_rollout_per_model_at_a_time(world: World) -> None:
    world.registry.add("toy", 1)
    world.begin("2", "run-1")
    with pytest.raises(Conflict, match="version 2 is being rolled out"):
        world.begin("3", "run-2")
    assert world.registry.aliases["challenger"] == "2"


def test_the_champion_is_not_rolled_out_again(world: World) -> None:
    with pytest.raises(UserMistake, match="champion already"):
        world.begin("1")


def test_rollback_works_without_registry_or_rollout(world: World) -> None:
    world.router.routes = Routes(50)
    rollout.rollback("toy", world.controls, "called by ada")
    assert world.router.routes == Routes()
    assert world.ledger.read("toy", "rollout")[-1]["reason"] == "called by ada"


def test_rollback_with_the_gateway_down_still_ends_the_rollout(world: World) -> None:
    world.begin()
    world.warm(2)
    world.router.down = True
    with pytest.raises(Unavailable):
        rollout.rollback("toy", world.controls, "called by ada")
    assert world.router.routes == Routes(), "left for the gateway to take up"
    assert world.phase is Phase.ROLLED_BACK


def test_a_step_does_not_start_after_a_rollback(world: World) -> None:
    world.begin()
    world.warm(1)
    rollout.rollback("toy", world.controls, "called by ada")
    with pytest.raises(Conflict, match="called by ada"):
        world.enter(2)
    assert world.router.routes == Routes()


def test_a_look_that_read_old_state_writes_nothing_over_a_rollback(world: World) -> None:
    world.begin()
    world.warm(1)
    old = rollout_state.load(world.folder, "toy")
    assert old is not None

    @dataclass
    class Meanwhile(FakeSignals):
        def counts(self, model: str, slow_ms: float) -> dict[str, ArmCounts]:
            rollout.rollback("toy", world.controls, "called by ada")
            return {}

    racing = replace(world.controls, signals=Meanwhile())
    assert rollout_look.look(world.spec, racing, world.run, world.now).decision == "wait"
    assert world.phase is Phase.ROLLED_BACK


def test_every_look_is_evidence_in_the_ledger(world: World) -> None:
    world.begin()
    world.pass_step(1)
    rows = world.ledger.read("toy", "look")
    assert rows[-1]["decision"] == "go on"
    assert rows[-1]["counts"] == {"stable": [20_000, 0, 0], "canary": [20_000, 0, 0]}
    assert {check["name"] for check in rows[-1]["verdict"]["checks"]} == {"error_rate", "slow_share"}


def test_who_was_champion_on_a_date_and_why(world: World) -> None:
    started = world.now
    world.ledger.clock = lambda: world.now
    world.begin()
    world.pass_all()
    world.promote()
    assert promotion.champion_on("toy", started, world.ledger) is None
    row = promotion.champion_on("toy", world.now, world.ledger)
    assert row is not None
    assert (row["version"], row["previous"]) == ("2", "1")
    assert row["reason"] == "passed every step of rollout run-1"


def test_many_looks_at_the_same_evidence_are_one_row(world: World) -> None:
    world.begin()
    world.warm(1)
    world.signals.traffic("stable", 90)
    world.signals.traffic("canary", 10)
    for _ in range(20):
        world.look()
    assert len(world.ledger.read("toy", "look")) == 1


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


def test_a_rollback_while_the_promotion_waits_for_the_slot_wins(world: World) -> None:
    world.begin()
    world.pass_all()

    class Slow(FakeSlots):
        def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
            rollout.rollback("toy", world.controls, "called by ada")

    world.slots = Slow()
    with pytest.raises(Conflict, match="called by ada"):
        world.promote()
    assert world.registry.aliases["champion"] == "1"


def test_a_rollback_while_stable_loads_the_new_champion_puts_the_old_one_back(world: World) -> None:
    world.begin()
    world.pass_all()

    class Slow(FakeSlots):
        def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
            if slot == "stable":
                assert world.registry.aliases["champion"] == "2"
                world.say(Word.ROLL_BACK, "calls come in")

    world.slots = Slow()
    with pytest.raises(Conflict, match="calls come in"):
        world.promote()
    rollout.close("toy", world.controls, world.registry)
    assert world.registry.aliases == {"champion": "1", "previous": "2"}
    assert world.router.routes == Routes()
    assert [row["version"] for row in world.ledger.read("toy", "champion")] == ["2", "1"]


def test_counts_that_could_not_be_read_before_the_first_look_are_no_base(world: World) -> None:
    world.signals.traffic("canary", 5_000, errors=5_000)
    world.begin()
    world.enter(1)
    world.signals.down = True
    world.look(6)
    world.signals.down = False
    assert world.look().decision == "wait", "errors of before the step are not this step's"


def test_a_bad_champion_is_replaced_by_the_one_before_it(world: World) -> None:
    world.registry.aliases = {"champion": "2", "previous": "1"}
    assert promotion.restore("toy", "ada", registry=world.registry, ledger=world.ledger) == "1"
    assert world.registry.aliases == {"champion": "1", "previous": "2"}
    assert world.ledger.read("toy", "champion")[-1]["reason"] == "put back by ada"


def test_the_shadow_ends_with_how_alike_the_models_answered_the_same_requests(world: World) -> None:
    scores = {"stable": [0.1, 0.2, 0.6, 0.9], "canary": [0.1, 0.2, 0.4, 0.8]}
    world.signals.logged = [
        {"id": f"r{i}", "slot": slot, "score": score} for slot in scores for i, score in enumerate(scores[slot])
    ]
    world.signals.logged.append({"id": "alone", "slot": "stable", "score": 1.0})
    world.begin()
    world.pass_step(0)
    (row,) = world.ledger.read("toy", "agreement")
    assert (row["requests"], row["flipped"], row["rank_correlation"]) == (4, 0.25, pytest.approx(1))
    assert row["mean_difference"] == pytest.approx(-0.075)
    assert "25.0% would be decided otherwise" in row["sentence"]


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
    world.tables.tables["landed"] = pa.table({
        "key": [str(n) for n in range(500)], "y": pa.array([1, 0] * 250, pa.int8()), "window": ["2026-03-01"] * 500,
    })  # fmt: skip
    event = datetime(2026, 3, 1, 5, tzinfo=UTC)
    world.signals.logged = [
        {"id": f"r{n}", "slot": "canary", "score": 0.5, "at": 10.0, "key": str(n), "time": event} for n in range(600)
    ]
    span = (datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(100, UTC))
    (found,) = rollout_values.read(world.spec, world.signals, world.tables, [span])
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


def test_a_newer_challenger_waits_or_supersedes_as_the_spec_says(world: World) -> None:
    world.registry.add("toy", 1)
    world.begin()
    world.enter(1)
    with pytest.raises(Conflict, match="version 2 is being rolled out"):
        world.begin("3", "run-2")
    world.spec = toy(rollout={**PLAN, "newer": "supersede"})
    world.begin("3", "run-2")
    assert world.registry.aliases == {"champion": "1", "challenger": "3"}
    assert world.registry.version("toy", "2").tags["rollout_reason"] == "superseded by version 3"
    assert world.router.routes == Routes(), "the newer one starts at its own first step"
    world.run = "run-1"
    for late in (lambda: world.enter(2), world.look, world.promote):
        with pytest.raises(Conflict, match="run-2"):
            late()


def test_the_plan_is_weighed_against_the_present_traffic(world: World) -> None:
    quiet = rollout.weigh(world.spec, world.controls, "run-1", world.now)
    assert "cannot be told" in quiet.checks[0].sentence
    answered(world, "stable", [0.2] * 6000, [None] * 6000, at=-30)
    world.signals.traffic("stable", 6000, errors=6)
    busy = rollout.weigh(world.spec, world.controls, "run-1", world.now)
    assert "at 100 requests/s, takes about" in busy.checks[0].sentence
    assert [row["verdict"]["outcome"] for row in world.ledger.read("toy", "plan")] == ["inconclusive", busy.outcome]
