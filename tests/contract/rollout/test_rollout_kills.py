"""A rollout on a real gateway whose driver is killed with SIGKILL in every step: it goes on where it was."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from include.adapters.tables.ledger import FileLedger
from include.domain.events import RoutesApplied
from include.stages.rollout import rollout
from include.stages.rollout import state as rollout_state
from tests.fakes import FakeRegistry, FakeSlots
from tests.gateway import Gateway, local_gateway
from tests.memory import MemoryTables
from tests.unit.toy import toy


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with local_gateway(tmp_path) as gateway:
        yield gateway


SPEC = toy(
    name="flights",
    rollout={
        "shadow": timedelta(seconds=3),
        "steps": [{"weight": 10, "hold": timedelta(minutes=5)}, {"weight": 50, "hold": timedelta(minutes=5)},
                  {"weight": 100}],
        "warm_up": timedelta(0),
        "min_requests": 100,
        "guards": {"error_rate": 0.3, "slow_share": None},
    },
)  # fmt: skip
#: Enters each step that is left and looks until it is decided, as the operator and its trigger do.
DRIVER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from include.settings import from_env
from include.stages.rollout import analysis, rollout, state as rollout_state
from tests.contract.rollout.test_rollout_kills import SPEC, controls
driven = controls(from_env({"PERENNIAL_HOME": sys.argv[1], "PERENNIAL_GATEWAY_ADMIN_PORT": sys.argv[2],
                            "PERENNIAL_STABLE_PORT": sys.argv[3], "PERENNIAL_CANARY_PORT": sys.argv[4]}))
state = rollout_state.load(driven.folder, "flights")
for step in range(max(state.step, 0), len(rollout.plan(SPEC))):
    rollout.enter(SPEC, driven, state.run, step, datetime.now(UTC))
    while (seen := analysis.look(SPEC, driven, state.run, datetime.now(UTC))).decision == "wait":
        time.sleep(0.05)
    assert seen.decision == "go on", seen.sentence
"""


def controls(settings: object) -> rollout.Controls:
    gateway = Gateway(settings)  # type: ignore[arg-type]
    return rollout.Controls(
        gateway.settings.home / "rollouts",
        gateway.router,
        gateway.signals,
        FileLedger(gateway.settings.ledger),
        lambda _: MemoryTables(),
    )


@contextmanager
def traffic(gateway: Gateway) -> Iterator[None]:
    stopped = Event()

    def ask() -> None:
        while not stopped.is_set():
            gateway.ask(20)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def drive(gateway: Gateway) -> subprocess.Popen[bytes]:
    settings = gateway.settings
    ports = [settings.gateway_admin_port, settings.stable_port, settings.canary_port]
    command = [sys.executable, "-c", DRIVER, str(settings.home), *map(str, ports)]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3])


def await_step(gateway: Gateway, step: int, driver: subprocess.Popen[bytes]) -> None:
    """Return once the step has been looked at."""
    deadline = time.monotonic() + 60
    while True:
        state = rollout_state.load(gateway.settings.home / "rollouts", "flights")
        assert state is not None
        if state.step > step or (state.step == step and state.seen is not None):
            return
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(300)
def test_a_driver_killed_in_every_step_leaves_the_traffic_as_the_plan_says(gateway: Gateway) -> None:
    driven = controls(gateway.settings)
    registry = FakeRegistry()
    registry.add("flights", 2)
    registry.aliases["champion"] = "1"
    rollout.begin(SPEC, driven, "2", registry=registry, slots=FakeSlots(), run="r", now=datetime.now(UTC))
    planned = [stage.routes for stage in rollout.plan(SPEC)]
    with traffic(gateway):
        for step in range(3):
            driver = drive(gateway)
            await_step(gateway, step, driver)
            driver.kill()
            driver.wait()
            assert gateway.router.current("flights") in planned
        driver = drive(gateway)
        assert driver.wait(120) == 0
    state = rollout_state.load(driven.folder, "flights")
    assert state is not None
    assert state.step == 3
    assert gateway.router.current("flights") == planned[3]
    entered = [event.canary for event in driven.ledger.read("flights", RoutesApplied)]
    assert sorted(entered) == entered, "no kill sends the rollout back a step"
    assert rollout.promote(SPEC, driven, "r", registry, FakeSlots()).version == "2"
    assert gateway.ask(10) == {"stable": 10}
