"""The router on a real HAProxy with two real servers behind it; what all routers promise is in test_routers.py."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from include.adapters.routers.haproxy import BUFFER_BYTES
from include.domain.errors import Unavailable
from include.ports.traffic import Routes
from tests.gateway import LocalGateway, local_gateway, until


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LocalGateway]:
    with local_gateway(tmp_path) as gateway:
        yield gateway


@pytest.mark.parametrize("weight", [50, 100])
def test_a_dead_canary_costs_no_caller_an_answer_and_its_failures_are_counted(
    gateway: LocalGateway, weight: int
) -> None:
    gateway.router.apply("flights", Routes(weight))
    with ThreadPoolExecutor(1) as caller:
        answers = caller.submit(gateway.ask, 1000)
        until(lambda: "canary" in gateway.signals.request_counts("flights", 100))
        gateway.kill("canary")
        assert set(answers.result()) == {"stable", "canary"}
    until(lambda: gateway.signals.request_counts("flights", 100)["canary"].errors > 0)
    until(lambda: gateway.out("canary"))
    assert gateway.ask(50) == {"stable": 50}
    gateway.serve("canary")
    until(lambda: gateway.ask(2)["canary"] > 0)


def test_errors_of_the_canary_reach_the_judge_and_no_caller(gateway: LocalGateway) -> None:
    gateway.kill("canary")
    gateway.serve("canary", "broken")
    gateway.router.apply("flights", Routes(50))
    assert gateway.ask(20) == {"stable": 20}
    until(lambda: gateway.signals.request_counts("flights", 100)["canary"].errors == 10)
    assert gateway.signals.request_counts("flights", 100)["stable"].errors == 0


@pytest.mark.parametrize("weight", [10, 50])
def test_a_dead_stable_slot_is_stood_in_for_during_a_rollout(gateway: LocalGateway, weight: int) -> None:
    gateway.router.apply("flights", Routes(weight))
    gateway.kill("stable")
    assert gateway.ask(20) == {"canary": 20}


def test_a_request_longer_than_the_gateway_holds_is_answered_but_neither_sent_again_nor_copied(
    gateway: LocalGateway,
) -> None:
    long = b"x" * (BUFFER_BYTES + 1)
    gateway.router.apply("flights", Routes(mirror=True))
    assert gateway.ask(5, long) == {"stable": 5}
    assert gateway.ask(3) == {"stable": 3}
    until(lambda: gateway.copied() == 3)
    gateway.kill("canary")
    gateway.serve("canary", "broken")
    gateway.router.apply("flights", Routes(50))
    assert gateway.ask(4, long) == {"stable": 2, "500": 2}


def test_a_shadow_that_hangs_holds_up_nobody(gateway: LocalGateway) -> None:
    gateway.processes["canary"].send_signal(signal.SIGSTOP)
    gateway.router.apply("flights", Routes(mirror=True))
    begun = time.monotonic()
    assert gateway.ask(1000) == {"stable": 1000}
    assert time.monotonic() - begun < 15, "a copy is waited for five seconds"


def test_what_is_no_prediction_does_not_reach_a_slot(gateway: LocalGateway) -> None:
    answers = {
        path: httpx.get(f"{gateway.settings.gateway_url}{path}", trust_env=False) for path in ("/metrics", "/status")
    }
    assert {path: answer.status_code for path, answer in answers.items()} == {"/metrics": 404, "/status": 404}


def test_the_split_that_the_running_gateway_tells_is_the_one_that_was_set(gateway: LocalGateway) -> None:
    for routes in (Routes(mirror=True), Routes(35), Routes()):
        gateway.router.apply("flights", routes)
        assert gateway.router.active("flights") == routes
    with pytest.raises(Unavailable, match="refuses"):
        gateway.router.apply("clicks", Routes(10))


def test_outside_a_rollout_nobody_meets_the_canary(gateway: LocalGateway) -> None:
    gateway.kill("stable")
    assert "canary" not in gateway.ask(10)


def test_without_its_only_slot_the_gateway_says_so_at_once_and_goes_on_when_it_is_back(gateway: LocalGateway) -> None:
    gateway.router.apply("flights", Routes(mirror=True))
    gateway.kill("canary")
    until(lambda: gateway.out("canary"))
    gateway.serve("canary")
    gateway.kill("stable")
    until(lambda: gateway.out("stable"))
    assert gateway.ask(10) == {"503": 10}
    gateway.serve("stable")
    until(lambda: gateway.ask(2) == {"stable": 2})


def test_the_servers_of_a_slot_share_its_requests_and_stand_in_for_one_that_died(tmp_path: Path) -> None:
    with local_gateway(tmp_path, servers=2) as gateway:
        assert gateway.ask(20) == {"stable": 10, "stable-2": 10}
        gateway.kill("stable")
        assert gateway.ask(20) == {"stable-2": 20}


def test_a_gateway_that_comes_back_goes_on_with_the_split_it_had(gateway: LocalGateway) -> None:
    gateway.router.apply("flights", Routes(50))
    gateway.kill("gateway")
    gateway.start()
    until(lambda: gateway.ask(10) == {"stable": 5, "canary": 5})


def test_routes_set_while_the_gateway_is_down_are_served_when_it_is_back(gateway: LocalGateway) -> None:
    gateway.router.apply("flights", Routes(50))
    gateway.kill("gateway")
    with pytest.raises(Unavailable, match=r"does not answer for 0\.1 s"):
        replace(gateway.router, patience=0.1).apply("flights", Routes())
    gateway.start()
    until(lambda: gateway.ask(10) == {"stable": 10})


def test_reloads_under_load_lose_no_request(gateway: LocalGateway) -> None:
    with ThreadPoolExecutor() as pool:
        pending = [pool.submit(gateway.ask, 300) for _ in range(4)]
        for weight in (10, 50, 90, 100, 0):
            gateway.router.apply("flights", Routes(weight))
        answered = sum((each.result() for each in pending), Counter[str]())
    assert answered.total() == answered["stable"] + answered["canary"] == 1200
