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
from include.ports.registry import Registry
from include.settings import Settings
from include.stages.rollout import rollout, state_file
from include.stages.rollout.services import RolloutServices
from include.stages.rollout.steps import steps_of
from tests.fakes import FakeRegistry, FakeSlots
from tests.gateway import LocalGateway, local_gateway
from tests.memory import MemoryTables
from tests.unit.toy import toy


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LocalGateway]:
    with local_gateway(tmp_path) as gateway:
        yield gateway


SPEC = toy(
    name="flights",
    rollout={
        "shadow": timedelta(seconds=3),
        "steps": [
            {"weight": 10, "hold": timedelta(minutes=5)},
            {"weight": 50, "hold": timedelta(minutes=5)},
            {"weight": 100},
        ],
        "warm_up": timedelta(0),
        "min_requests": 100,
        "guards": {"error_rate": 0.3, "slow_share": None},
    },
)
#: Enters each step that is left and analyses it until it is decided, as the operator and its trigger do.
DRIVER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from include.settings import from_env
from include.stages.rollout import analysis, rollout, state_file
from include.stages.rollout.steps import steps_of
from tests.contract.rollout.test_rollout_kills import SPEC, services_of
services = services_of(from_env({"PERENNIAL_HOME": sys.argv[1], "PERENNIAL_GATEWAY_ADMIN_PORT": sys.argv[2],
                                 "PERENNIAL_STABLE_PORT": sys.argv[3], "PERENNIAL_CANARY_PORT": sys.argv[4]}))
state = state_file.load(services.folder, "flights")
for step in range(max(state.step, 0), len(steps_of(SPEC.rollout))):
    rollout.enter_step(SPEC, services, state.run, step, datetime.now(UTC))
    while (result := analysis.analyse(SPEC, services, state.run, datetime.now(UTC))).decision == "wait":
        time.sleep(0.05)
    assert result.decision == "go on", result.sentence
"""


def services_of(settings: Settings, registry: Registry | None = None) -> RolloutServices:
    """What a rollout on the gateway of these settings needs; only the ledger, the gateway and its counters are real."""
    gateway = LocalGateway(settings)
    return RolloutServices(
        folder=settings.home / "rollouts",
        router=gateway.router,
        slots=FakeSlots(),
        signals=gateway.signals,
        registry=registry or FakeRegistry(),
        ledger=FileLedger(settings.ledger),
        tables=lambda _: MemoryTables(),
    )


@contextmanager
def traffic(gateway: LocalGateway) -> Iterator[None]:
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


def drive(gateway: LocalGateway) -> subprocess.Popen[bytes]:
    settings = gateway.settings
    ports = [settings.gateway_admin_port, settings.stable_port, settings.canary_port]
    command = [sys.executable, "-c", DRIVER, str(settings.home), *map(str, ports)]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[3])


def await_step(gateway: LocalGateway, step: int, driver: subprocess.Popen[bytes]) -> None:
    """Return once the step has been analysed."""
    deadline = time.monotonic() + 60
    while True:
        state = state_file.load(gateway.settings.home / "rollouts", "flights")
        assert state is not None
        if state.step > step or (state.step == step and state.last_counts is not None):
            return
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(300)
def test_a_driver_killed_in_every_step_leaves_the_traffic_as_the_plan_says(gateway: LocalGateway) -> None:
    registry = FakeRegistry()
    registry.add("flights", 2)
    registry.aliases["champion"] = "1"
    services = services_of(gateway.settings, registry)
    rollout.begin(SPEC, services, "2", "r", datetime.now(UTC))
    planned = [step.routes for step in steps_of(SPEC.rollout)]
    with traffic(gateway):
        for step in range(3):
            driver = drive(gateway)
            await_step(gateway, step, driver)
            driver.kill()
            driver.wait()
            assert gateway.router.current("flights") in planned
        driver = drive(gateway)
        assert driver.wait(120) == 0
    state = state_file.load(services.folder, "flights")
    assert state is not None
    assert state.step == 3
    assert gateway.router.current("flights") == planned[3]
    entered = [event.canary for event in services.ledger.read("flights", RoutesApplied)]
    assert sorted(entered) == entered, "no kill sends the rollout back a step"
    assert rollout.promote(SPEC, services, "r").version == "2"
    assert gateway.ask(10) == {"stable": 10}
