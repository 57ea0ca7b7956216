"""A rollout goes on from wherever it was killed, ends with one model serving everyone, and goes back by itself."""

from datetime import timedelta

import pytest

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.events import ChampionPromoted
from include.domain.rollout.variants import RequestCounts
from include.ports.traffic import Routes
from include.stages.rollout import rollout
from include.stages.rollout.state import Phase
from include.stages.rollout.steps import steps_of
from tests.unit.rollout.scenario import LAST, PLAN, RolloutScenario
from tests.unit.toy import toy


def test_a_good_challenger_becomes_champion_step_by_step(scenario: RolloutScenario) -> None:
    scenario.begin()
    assert scenario.registry.aliases == {"champion": "1", "challenger": "2"}
    decisions = [scenario.pass_step(step).decision for step in range(3)]
    assert decisions == ["go on", "go on", "go on"]
    assert scenario.enter(LAST) is None
    assert scenario.analyse().decision == "go on"
    assert scenario.registry.aliases["champion"] == "1", "champion moves only when the rollout has finished"
    assert scenario.promote() == "2"
    assert scenario.registry.aliases == {"champion": "2", "previous": "1"}
    assert scenario.router.applied == [Routes(0, mirror=True), Routes(10), Routes(50), Routes(100), Routes()]
    assert scenario.slots.awaited == [("canary", "2"), ("canary", "2"), ("stable", "2")]


def test_a_first_release_skips_what_cannot_be_compared_and_is_judged_alone(scenario: RolloutScenario) -> None:
    scenario.registry.aliases.clear()
    scenario.begin("1")
    assert all("first release" in (scenario.enter(step) or "") for step in range(LAST))
    scenario.warm(LAST)
    scenario.signals.traffic("canary", 2_000)
    assert scenario.analyse().decision == "go on"
    assert scenario.promote() == "1"
    assert scenario.registry.aliases == {"champion": "1"}
    assert scenario.router.applied == [Routes(100), Routes()]


def test_errors_of_the_challenger_send_traffic_back_within_the_analysis(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("stable", 9_000)
    scenario.signals.traffic("canary", 1_000, errors=100)
    result = scenario.analyse()
    assert result.decision == "roll back"
    assert "error" in result.sentence
    assert scenario.router.routes == Routes()
    assert scenario.phase is Phase.ROLLED_BACK
    with pytest.raises(Conflict, match="rolled back"):
        scenario.analyse()
    rollout.close("toy", scenario.services)
    assert scenario.registry.aliases == {"champion": "1"}
    assert "error" in scenario.registry.version("toy", "2").tags["rollout_reason"]


def test_mirrored_traffic_holds_for_the_whole_shadow_though_it_looks_good_at_once(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(0)
    scenario.signals.traffic("stable", 50_000)
    scenario.signals.traffic("canary", 50_000)
    assert scenario.analyse(10).decision == "wait"
    assert scenario.analyse(60).decision == "go on"


def test_evidence_of_earlier_steps_does_not_spare_a_step_its_own_traffic(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.pass_step(1)
    scenario.warm(2)
    scenario.signals.traffic("stable", 400)
    scenario.signals.traffic("canary", 400)
    assert scenario.analyse().decision == "wait"
    scenario.signals.traffic("canary", 200)
    assert scenario.analyse().decision == "go on"


def test_no_traffic_is_inconclusive_and_goes_back_at_the_end_of_the_hold(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    assert scenario.analyse(60).decision == "wait"
    result = scenario.analyse(600)
    assert result.decision == "roll back"
    assert "inconclusive" in result.sentence


def test_a_rollout_takes_no_longer_than_the_plan_allows(scenario: RolloutScenario) -> None:
    scenario.spec = toy(rollout={**PLAN, "on_inconclusive": "hold", "max_duration": timedelta(minutes=20)})
    scenario.begin()
    scenario.warm(1)
    assert scenario.analyse(1201).decision == "roll back"
    assert scenario.router.routes == Routes()


def test_a_canary_that_the_gateway_took_out_fails_though_it_shows_no_error(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(2)
    scenario.signals.traffic("stable", 1_000)
    result = scenario.analyse()
    assert result.decision == "roll back"
    assert "answered none of about 500 requests" in result.sentence


def test_warm_up_is_not_judged(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.enter(1)
    scenario.signals.traffic("canary", 1_000, errors=1_000)
    assert scenario.analyse(2).decision == "wait"
    assert scenario.analyse(4).decision == "wait"


def test_a_gateway_that_starts_anew_loses_no_evidence(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("stable", 900)
    scenario.signals.traffic("canary", 100)
    scenario.analyse()
    scenario.signals.by_slot = {"stable": RequestCounts(90, 0, 0), "canary": RequestCounts(10, 0, 0)}
    scenario.analyse()
    assert scenario.state.traffic == {"stable": RequestCounts(990, 0, 0), "canary": RequestCounts(110, 0, 0)}


def test_a_gateway_whose_counters_do_not_answer_is_waited_for(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.signals.down = True
    result = scenario.analyse()
    assert result.decision == "wait"
    assert "do not answer" in result.sentence


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_killed_step_goes_on_with_its_clock_and_its_counts(scenario: RolloutScenario, step: int) -> None:
    scenario.begin()
    scenario.warm(step)
    scenario.signals.traffic("stable", 100)
    scenario.signals.traffic("canary", 100)
    scenario.analyse()
    before = scenario.state
    scenario.now += timedelta(seconds=30)
    scenario.begin()
    scenario.enter(step)
    assert scenario.state == before
    assert scenario.router.routes == steps_of(scenario.spec.rollout)[step].routes


@pytest.mark.parametrize("stuck", ["canary", "stable"])
def test_a_killed_promotion_is_finished_by_the_next_try(scenario: RolloutScenario, stuck: str) -> None:
    scenario.begin()
    scenario.pass_all()
    scenario.slots.stuck = {stuck}
    with pytest.raises(Unavailable):
        scenario.promote()
    assert scenario.router.routes == Routes(100), "the canary serves everyone until stable has the new version"
    scenario.slots.stuck = set()
    scenario.promote()
    scenario.promote()
    assert scenario.registry.aliases == {"champion": "2", "previous": "1"}
    assert [event.version for event in scenario.ledger.read("toy", ChampionPromoted)] == ["2"]


def test_nothing_is_promoted_before_the_last_step(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.pass_step(1)
    with pytest.raises(UserMistake, match="last step"):
        scenario.promote()
    assert scenario.registry.aliases["champion"] == "1"


def test_promotion_stops_when_somebody_else_was_made_champion(scenario: RolloutScenario) -> None:
    scenario.registry.add("toy", 1)
    scenario.begin()
    scenario.pass_all()
    scenario.registry.aliases["champion"] = "3"
    with pytest.raises(Conflict):
        scenario.promote()
    assert scenario.registry.aliases["champion"] == "3"


def test_one_rollout_per_model_at_a_time(scenario: RolloutScenario) -> None:
    scenario.registry.add("toy", 1)
    scenario.begin("2", "run-1")
    with pytest.raises(Conflict, match="version 2 is being rolled out"):
        scenario.begin("3", "run-2")
    assert scenario.registry.aliases["challenger"] == "2"


def test_the_champion_is_not_rolled_out_again(scenario: RolloutScenario) -> None:
    with pytest.raises(UserMistake, match="champion already"):
        scenario.begin("1")


def test_counts_that_could_not_be_read_before_the_first_analysis_are_no_base(scenario: RolloutScenario) -> None:
    scenario.signals.traffic("canary", 5_000, errors=5_000)
    scenario.begin()
    scenario.enter(1)
    scenario.signals.down = True
    scenario.analyse(6)
    scenario.signals.down = False
    assert scenario.analyse().decision == "wait", "errors of before the step are not this step's"


def test_a_newer_challenger_waits_or_supersedes_as_the_spec_says(scenario: RolloutScenario) -> None:
    scenario.registry.add("toy", 1)
    scenario.begin()
    scenario.enter(1)
    with pytest.raises(Conflict, match="version 2 is being rolled out"):
        scenario.begin("3", "run-2")
    scenario.spec = toy(rollout={**PLAN, "newer": "supersede"})
    scenario.begin("3", "run-2")
    assert scenario.registry.aliases == {"champion": "1", "challenger": "3"}
    assert scenario.registry.version("toy", "2").tags["rollout_reason"] == "superseded by version 3"
    assert scenario.router.routes == Routes(), "the newer one starts at its own first step"
    scenario.run = "run-1"
    for late in (lambda: scenario.enter(2), scenario.analyse, scenario.promote):
        with pytest.raises(Conflict, match="run-2"):
            late()
