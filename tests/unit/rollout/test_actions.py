"""What people say to a rollout holds at once, whatever it is doing."""

import re
from dataclasses import dataclass, replace

import pytest

from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.events import ActionRequested, ChampionPromoted, RolloutChanged, StepAnalysed
from include.domain.rollout.actions import Word
from include.ports.traffic import ArmCounts, Routes
from include.reports import model_page, rollout_page
from include.stages.release import promotion
from include.stages.release.promotion import ReleaseServices
from include.stages.rollout import analysis, rollout
from include.stages.rollout import state as rollout_state
from include.stages.rollout.state import Phase
from tests.fakes import FakeSignals, FakeSlots
from tests.unit.rollout.rolling import LAST, PLAN, World
from tests.unit.toy import toy


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
    world.ledger.append(
        "toy", ActionRequested(word=Word.PAUSE, by="ada", reason="of an older release, which kept no run")
    )
    world.begin()
    world.pass_all()
    world.enter(LAST)
    world.say(Word.PROMOTE, "seen enough")
    assert world.look().sentence == "100 %: promoted by ada: seen enough"
    world.promote()
    assert world.ledger.read("toy", ChampionPromoted)[-1].reason == "promoted by ada: seen enough"
    assert "ada says promote: seen enough" in rollout_page.page("toy", "run-1", world.ledger)


@pytest.mark.parametrize("word", [Word.ROLL_BACK, Word.ABORT])
def test_what_a_person_says_sends_traffic_back_and_is_kept_with_its_reason(world: World, word: Word) -> None:
    world.begin()
    world.enter(1)
    world.say(word, "too many calls")
    assert world.router.routes == Routes()
    assert world.state.reason.endswith("ada: too many calls")
    (action,) = world.ledger.read("toy", ActionRequested)
    assert (action.word, action.by, action.reason) == (word, "ada", "too many calls")


def test_the_models_page_says_how_the_rollout_stands_with_a_button_for_each_word_that_can_be_said_now(
    world: World,
) -> None:
    def page() -> str:
        state = rollout_state.load(world.folder, "toy")
        return model_page.page("toy", "Is it?", "nobody", state, world.ledger.read("toy", StepAnalysed), [], [])

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


def test_rollback_works_without_registry_or_rollout(world: World) -> None:
    world.router.routes = Routes(50)
    rollout.rollback("toy", world.controls, "called by ada")
    assert world.router.routes == Routes()
    assert world.ledger.read("toy", RolloutChanged)[-1].reason == "called by ada"


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
    assert analysis.look(world.spec, racing, world.run, world.now).decision == "wait"
    assert world.phase is Phase.ROLLED_BACK


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
    assert [event.version for event in world.ledger.read("toy", ChampionPromoted)] == ["2", "1"]


def test_a_bad_champion_is_replaced_by_the_one_before_it(world: World) -> None:
    world.registry.aliases = {"champion": "2", "previous": "1"}
    assert promotion.restore_previous("toy", "ada", ReleaseServices(world.registry, world.ledger)) == "1"
    assert world.registry.aliases == {"champion": "1", "previous": "2"}
    assert world.ledger.read("toy", ChampionPromoted)[-1].reason == "put back by ada"
