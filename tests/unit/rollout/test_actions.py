"""What people say to a rollout holds at once, whatever it is doing."""

import re
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.events import ActionRequested, ChampionPromoted, RolloutChanged, StepAnalysed
from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.variants import RequestCounts
from include.ports.registry import Registry
from include.ports.serving import Slots
from include.ports.traffic import Routes
from include.reports import model_page, rollout_page
from include.stages.release import promotion
from include.stages.rollout import analysis, rollout, state_file
from include.stages.rollout.services import RolloutServices
from include.stages.rollout.state import Phase
from tests.fakes import FakeSignals, FakeSlots
from tests.unit.rollout.scenario import LAST, PLAN, RolloutScenario
from tests.unit.toy import toy


def test_an_inconclusive_step_waits_for_a_person_where_the_spec_says_hold(scenario: RolloutScenario) -> None:
    scenario.spec = toy(rollout={**PLAN, "on_inconclusive": "hold"})
    scenario.begin()
    scenario.warm(1)
    assert "held for a person" in scenario.analyse(700).sentence
    assert scenario.router.routes == Routes(10)
    scenario.perform(RolloutAction.ABORT)
    assert scenario.router.routes == Routes(), "at once, not at the next analysis"
    with pytest.raises(Conflict, match="aborted by ada"):
        scenario.analyse()


def test_a_pause_holds_the_step_however_long_until_a_person_resumes(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.perform(RolloutAction.PAUSE)
    scenario.signals.traffic("stable", 20_000)
    scenario.signals.traffic("canary", 20_000)
    assert "paused by ada" in scenario.analyse(7000).sentence
    scenario.perform(RolloutAction.RESUME)
    assert scenario.analyse().decision == "go on"


def test_a_guard_that_fails_sends_traffic_back_though_the_rollout_is_paused(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.perform(RolloutAction.PAUSE)
    scenario.signals.traffic("stable", 9_000)
    scenario.signals.traffic("canary", 1_000, errors=1_000)
    assert scenario.analyse().decision == "roll back"


def test_a_person_can_promote_now(scenario: RolloutScenario) -> None:
    scenario.ledger.clock = lambda: scenario.now
    scenario.perform(RolloutAction.ROLL_BACK, "to no rollout")
    scenario.ledger.append(
        "toy", ActionRequested(word=RolloutAction.PAUSE, by="ada", reason="of an older release, which recorded no run")
    )
    scenario.begin()
    scenario.pass_all()
    scenario.enter(LAST)
    scenario.perform(RolloutAction.PROMOTE, "seen enough")
    assert scenario.analyse().sentence == "100 %: promoted by ada: seen enough"
    scenario.promote()
    assert scenario.ledger.read("toy", ChampionPromoted)[-1].reason == "promoted by ada: seen enough"
    assert "ada says promote: seen enough" in rollout_page.page("toy", "run-1", scenario.ledger)


@pytest.mark.parametrize("action", [RolloutAction.ROLL_BACK, RolloutAction.ABORT])
def test_an_action_sends_traffic_back_and_is_recorded_with_its_reason(
    scenario: RolloutScenario, action: RolloutAction
) -> None:
    scenario.begin()
    scenario.enter(1)
    scenario.perform(action, "too many calls")
    assert scenario.router.routes == Routes()
    assert scenario.state.reason.endswith("ada: too many calls")
    (event,) = scenario.ledger.read("toy", ActionRequested)
    assert (event.word, event.by, event.reason) == (action, "ada", "too many calls")


def test_the_models_page_says_how_the_rollout_stands_with_a_button_for_each_action_that_is_possible_now(
    scenario: RolloutScenario,
) -> None:
    def page() -> str:
        state = state_file.load(scenario.folder, "toy")
        return model_page.page("toy", "Is it?", "nobody", state, scenario.ledger.read("toy", StepAnalysed), [], [])

    def buttons() -> set[str]:
        return set(re.findall(r'<button name="word" value="([^"]+)"', page()))

    assert buttons() == {"roll back", "restore the previous champion"}
    scenario.ledger.clock = lambda: scenario.now
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("canary", 10)
    scenario.analyse()
    assert buttons() == set(RolloutAction)
    assert "version 2: running; 10 %: 7 s of at most 600 s" in page()


def test_an_action_is_for_the_rollout_it_was_meant_for(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.perform(RolloutAction.PAUSE)
    scenario.perform(RolloutAction.ABORT)
    for action in (RolloutAction.PAUSE, RolloutAction.ABORT):
        with pytest.raises(UserMistake, match=f"nothing to {action}"):
            scenario.perform(action)
    scenario.begin(run="run-2")
    scenario.warm(1)
    assert scenario.analyse().decision == "wait"


class Unreachable:
    """A registry, or model servers, of which nobody may ask anything."""

    def __getattr__(self, name: str) -> Any:
        raise Unavailable(f"{name} does not answer")


def unreachable(services: RolloutServices) -> RolloutServices:
    """Return the services with a registry and model servers that do not answer."""
    return replace(services, registry=cast("Registry", Unreachable()), slots=cast("Slots", Unreachable()))


def test_rollback_works_without_registry_or_rollout(scenario: RolloutScenario) -> None:
    scenario.router.routes = Routes(50)
    rollout.rollback("toy", unreachable(scenario.services), "called by ada")
    assert scenario.router.routes == Routes()
    assert scenario.ledger.read("toy", RolloutChanged)[-1].reason == "called by ada"


def test_an_analysis_and_the_rollback_it_decides_need_neither_registry_nor_model_servers(
    scenario: RolloutScenario,
) -> None:
    scenario.begin()
    scenario.warm(1)
    scenario.signals.traffic("stable", 9_000)
    scenario.signals.traffic("canary", 1_000, errors=1_000)
    services = unreachable(scenario.services)
    assert analysis.analyse(scenario.spec, services, scenario.run, scenario.now).decision == "roll back"
    assert (scenario.router.routes, scenario.phase) == (Routes(), Phase.ROLLED_BACK)


def test_rollback_with_the_gateway_down_still_ends_the_rollout(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(2)
    scenario.router.down = True
    with pytest.raises(Unavailable):
        rollout.rollback("toy", scenario.services, "called by ada")
    assert scenario.router.routes == Routes(), "left for the gateway to take up"
    assert scenario.phase is Phase.ROLLED_BACK


def test_a_step_does_not_start_after_a_rollback(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    rollout.rollback("toy", scenario.services, "called by ada")
    with pytest.raises(Conflict, match="called by ada"):
        scenario.enter(2)
    assert scenario.router.routes == Routes()


def test_a_look_that_read_old_state_writes_nothing_over_a_rollback(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.warm(1)
    old = state_file.load(scenario.folder, "toy")
    assert old is not None

    @dataclass
    class SignalsDuringARollback(FakeSignals):
        def request_counts(self, model: str, slow_ms: float) -> dict[str, RequestCounts]:
            rollout.rollback("toy", scenario.services, "called by ada")
            return {}

    racing = replace(scenario.services, signals=SignalsDuringARollback())
    assert analysis.analyse(scenario.spec, racing, scenario.run, scenario.now).decision == "wait"
    assert scenario.phase is Phase.ROLLED_BACK


def test_a_rollback_while_the_promotion_waits_for_the_slot_wins(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.pass_all()

    class SlotsThatLoadDuringARollback(FakeSlots):
        def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
            rollout.rollback("toy", scenario.services, "called by ada")

    scenario.slots = SlotsThatLoadDuringARollback()
    with pytest.raises(Conflict, match="called by ada"):
        scenario.promote()
    assert scenario.registry.aliases["champion"] == "1"


def test_a_rollback_while_stable_loads_the_new_champion_puts_the_old_one_back(scenario: RolloutScenario) -> None:
    scenario.begin()
    scenario.pass_all()

    class StableThatLoadsDuringARollback(FakeSlots):
        def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
            if slot == "stable":
                assert scenario.registry.aliases["champion"] == "2"
                scenario.perform(RolloutAction.ROLL_BACK, "calls come in")

    scenario.slots = StableThatLoadsDuringARollback()
    with pytest.raises(Conflict, match="calls come in"):
        scenario.promote()
    rollout.close("toy", scenario.services)
    assert scenario.registry.aliases == {"champion": "1", "previous": "2"}
    assert scenario.router.routes == Routes()
    assert [event.version for event in scenario.ledger.read("toy", ChampionPromoted)] == ["2", "1"]


def test_a_bad_champion_is_replaced_by_the_one_before_it(scenario: RolloutScenario) -> None:
    scenario.registry.aliases = {"champion": "2", "previous": "1"}
    assert promotion.restore_previous("toy", "ada", scenario.services.release) == "1"
    assert scenario.registry.aliases == {"champion": "1", "previous": "2"}
    assert scenario.ledger.read("toy", ChampionPromoted)[-1].reason == "put back by ada"
