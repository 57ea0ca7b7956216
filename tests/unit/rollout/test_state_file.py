"""The files of rollouts: those of earlier releases are read, and what is written is what they would have written."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.domain.errors import UserMistake
from include.domain.rollout.actions import PendingAction, RolloutAction
from include.domain.rollout.variants import Moments, RequestCounts
from include.stages.rollout import state_file
from include.stages.rollout.state import Phase, RolloutState

#: Written by the release before the state became a typed class: a rollout in its third step, paused, and one that ended.
EARLIER = Path(__file__).with_name("state_files")
BEGAN = datetime(2026, 11, 1, 8, tzinfo=UTC)


def earlier(model: str) -> RolloutState:
    state = state_file.load(EARLIER, model)
    assert state is not None
    return state


def test_a_rollout_that_an_earlier_release_began_goes_on_where_it_was() -> None:
    state = earlier("flights")
    assert (state.version, state.champion, state.run) == ("2", "1", "manual__2026-11-01")
    assert (state.phase, state.active, state.step, state.analyses) == (Phase.RUNNING, True, 2, 2461)
    assert (state.began_at, state.step_began_at) == (BEGAN, BEGAN + timedelta(minutes=40))
    assert state.last_counts == {"canary": RequestCounts(1200, 3, 40), "stable": RequestCounts(9300, 11, 180)}
    assert state.step_counts[1]["stable"] == RequestCounts(6300, 6, 120)
    assert state.traffic == {"canary": RequestCounts(500, 2, 20), "stable": RequestCounts(500, 5, 30)}
    assert (state.requests, state.recorded_requests) == (1000, 1000)
    assert state.step_metrics[1]["stable"].label == Moments(2, 1.0, 1.0)
    assert state.step_metrics[2]["canary"].above == (3, 3, 3, 2, 2, 1, 1, 1, 0)
    assert state.metrics_read_at == BEGAN + timedelta(minutes=41)


def test_a_rollout_that_an_earlier_release_ended_keeps_its_reason() -> None:
    state = earlier("clicks")
    assert (state.phase, state.active, state.first_release) == (Phase.ROLLED_BACK, False, True)
    assert (state.entered_at, state.last_counts, state.reason) == ((None, BEGAN), None, "shadow: error_rate")


def test_an_action_that_an_earlier_release_left_is_carried_out() -> None:
    pending = state_file.latest_action(EARLIER, earlier("flights"))
    assert pending == PendingAction(RolloutAction.PAUSE, "ada: calls come in")


@pytest.mark.parametrize("model", ["flights", "clicks"])
def test_a_state_is_written_with_the_keys_of_earlier_releases(tmp_path: Path, model: str) -> None:
    state_file.save(tmp_path, earlier(model))
    assert (tmp_path / f"{model}.json").read_bytes() == (EARLIER / f"{model}.json").read_bytes()


def test_an_action_is_written_with_the_keys_of_earlier_releases(tmp_path: Path) -> None:
    shutil.copy(EARLIER / "flights.json", tmp_path)
    at = BEGAN + timedelta(minutes=41)
    state_file.leave_action(tmp_path, "flights", RolloutAction.PAUSE, "ada: calls come in", at)
    written, before = ((folder / "flights.word.json").read_text() for folder in (tmp_path, EARLIER))
    assert json.loads(written) == json.loads(before)


def test_an_action_counts_for_the_run_that_it_was_left_for_alone(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    newer = RolloutState("flights", "3", "1", "manual__later", BEGAN)
    assert state_file.latest_action(tmp_path, newer) is None


def test_an_action_needs_a_rollout_that_runs(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    for model in ("clicks", "other"):
        with pytest.raises(UserMistake, match="no step of a rollout is running"):
            state_file.leave_action(tmp_path, model, RolloutAction.PAUSE, "ada", BEGAN)
