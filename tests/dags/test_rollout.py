"""The tasks of a rollout as a worker and the triggerer run them, on a real gateway: enter a step, wait, conclude."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.triggers.base import TriggerEvent

from include.domain.errors import Conflict
from include.domain.rollout.plan import Rollout, Step
from include.ports.traffic import Routes
from include.settings import ROOT
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.stages.rollout import rollout, state_file
from include.stages.rollout.state import Phase, RolloutState
from include.wiring import parts
from plugins.operators import RolloutStepOperator
from plugins.triggers import RolloutTrigger
from tests.dags.worker import run_of
from tests.gateway import LocalGateway, local_gateway

RUN = "run-1"


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalGateway]:
    """A gateway whose settings are those of this process."""
    with local_gateway(tmp_path) as gateway:
        settings = gateway.settings
        variables = {
            "HOME": settings.home,
            "MODELS": ROOT / "include" / "models",
            "GATEWAY_PORT": settings.gateway_port,
            "GATEWAY_ADMIN_PORT": settings.gateway_admin_port,
            "STABLE_PORT": settings.stable_port,
            "CANARY_PORT": settings.canary_port,
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
        yield gateway


def begun(gateway: LocalGateway, champion: str | None = "1") -> None:
    """Write the state of a rollout of version 2 that has begun."""
    state = RolloutState("flights", "2", champion, RUN, datetime.now(UTC))
    folder = gateway.settings.home / "rollouts"
    with state_file.locked(folder, "flights"):
        state_file.save(folder, state)


def flights() -> ModelSpec:
    return find("flights", ROOT / "include" / "models")


def step(number: int) -> RolloutStepOperator:
    return RolloutStepOperator.for_plan(flights())[number]


def execute(operator: RolloutStepOperator) -> TaskDeferred:
    """Run the task until it waits in the triggerer."""
    with run_of(RUN), pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    return deferred.value


def first_event(trigger: RolloutTrigger) -> dict[str, Any]:
    async def wait() -> TriggerEvent:
        return await anext(aiter(trigger.run()))

    return dict(asyncio.run(asyncio.wait_for(wait(), 30)).payload)


def test_the_tasks_are_the_shadow_and_each_step_of_the_plan() -> None:
    spec = flights().model_copy(update={"rollout": Rollout(steps=(Step(5), Step(20), Step(100)))})
    tasks = RolloutStepOperator.for_plan(spec)
    assert [(task.task_id, task.step) for task in tasks] == [
        ("shadow", 0),
        ("canary_5", 1),
        ("canary_20", 2),
        ("canary_100", 3),
    ]
    assert {task.model for task in tasks} == {"flights"}


def test_a_step_splits_the_traffic_and_then_waits_without_a_worker(gateway: LocalGateway) -> None:
    begun(gateway)
    deferred = execute(step(1))
    assert gateway.router.active("flights") == Routes(flights().rollout.steps[0].weight)
    assert deferred.trigger.serialize() == ("plugins.triggers.RolloutTrigger", {"model": "flights", "run": RUN})
    assert callable(getattr(step(1), deferred.method_name))


def test_a_step_that_the_rollout_does_not_take_is_skipped_with_the_reason(gateway: LocalGateway) -> None:
    begun(gateway, champion=None)
    with run_of(RUN), pytest.raises(AirflowSkipException, match="first release"):
        step(1).execute({})
    assert gateway.router.active("flights") == Routes()


def test_a_step_of_a_rollout_that_has_ended_touches_no_traffic(gateway: LocalGateway) -> None:
    begun(gateway)
    with run_of("another run"), pytest.raises(Conflict, match="took this one's place"):
        step(1).execute({})
    assert gateway.router.active("flights") == Routes()


def test_a_step_whose_trigger_reports_a_rollback_fails_without_a_retry_and_another_returns_its_sentence() -> None:
    operator = step(1)
    assert operator.conclude({}, {"decision": "go on", "sentence": "10 %: not worse"}) == "10 %: not worse"
    with pytest.raises(AirflowFailException, match="error_rate"):
        operator.conclude({}, {"decision": "roll back", "sentence": "10 %: worse: error_rate"})


def test_the_trigger_analyses_until_the_step_is_decided(gateway: LocalGateway) -> None:
    begun(gateway)
    execute(step(0))
    folder = gateway.settings.home / "rollouts"
    state = state_file.load(folder, "flights")
    assert state is not None
    long_ago = state.began_at - 2 * flights().rollout.max_duration
    state_file.save(folder, replace(state, began_at=long_ago, entered_at=(long_ago,)))
    event = first_event(RolloutTrigger("flights", RUN))
    assert event["decision"] == "roll back"
    assert "the rollout took longer than" in event["sentence"]
    assert gateway.router.active("flights") == Routes(), "the traffic is back before the task hears of it"


def test_a_rollout_that_somebody_ended_meanwhile_is_reported_as_rolled_back(gateway: LocalGateway) -> None:
    begun(gateway)
    execute(step(0))
    rollout.rollback("flights", parts().rollout_services(), "called by ada")
    event = first_event(RolloutTrigger("flights", RUN))
    assert event["decision"] == "roll back"
    assert "called by ada" in event["sentence"]
    state = state_file.load(gateway.settings.home / "rollouts", "flights")
    assert state is not None
    assert state.phase is Phase.ROLLED_BACK
