"""A rollout goes on from wherever it was killed, ends with one model serving everyone, and goes back by itself."""

from datetime import timedelta

import pytest

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.events import ChampionPromoted
from include.ports.traffic import ArmCounts, Routes
from include.stages.rollout import rollout
from include.stages.rollout import state as rollout_state
from include.stages.rollout.state import Phase
from tests.unit.rollout.rolling import LAST, PLAN, World
from tests.unit.toy import toy


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
    assert [event.version for event in world.ledger.read("toy", ChampionPromoted)] == ["2"]


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


def test_counts_that_could_not_be_read_before_the_first_look_are_no_base(world: World) -> None:
    world.signals.traffic("canary", 5_000, errors=5_000)
    world.begin()
    world.enter(1)
    world.signals.down = True
    world.look(6)
    world.signals.down = False
    assert world.look().decision == "wait", "errors of before the step are not this step's"


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
