"""The server as a process, called over HTTP, with a registry that answers as MLflow does."""

import itertools
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest

from include.adapters.serving.slots import HttpSlots
from include.domain.errors import Unavailable
from tests.serving import ROW, FakeMLflow, ServerProcess, expected, rows, wait_for, write_artifact

BIASES = {"1": 0.0, "2": 1.0, "3": -1.0}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeMLflow]:
    registry = FakeMLflow()
    for number, bias in BIASES.items():
        registry.versions[number] = write_artifact(tmp_path / f"run-{number}", bias)
    yield registry
    registry.close()


@pytest.fixture
def server(tmp_path: Path, registry: FakeMLflow) -> Iterator[ServerProcess]:
    registry.aliases["champion"] = "1"
    server = ServerProcess(tmp_path, "--slot", "stable", "--registry", registry.url)
    yield server
    server.close()


def wait_for_version(server: ServerProcess, number: str) -> None:
    wait_for(lambda: server.status()["version"] == number, f"version {number}")


def test_rows_score_as_the_model_says_alone_and_together(server: ServerProcess) -> None:
    sent = rows(200)
    together = server.predict(*sent)
    with ThreadPoolExecutor(8) as callers:
        alone = [p["scores"][0] for p in callers.map(server.predict, sent)]
    for row, one, many in zip(sent, alone, together["scores"], strict=True):
        assert one == pytest.approx(expected(row), abs=1e-5)
        assert many == pytest.approx(one, abs=1e-6)
    assert (together["model"], together["version"], together["slot"]) == ("flights", "1", "stable")


def test_one_bare_row_is_a_request_too(server: ServerProcess) -> None:
    answer = server.http.post("/predict", json=ROW).json()
    assert answer["scores"] == [pytest.approx(expected(ROW), abs=1e-5)]


def test_a_unix_socket_is_its_owners_alone_and_is_taken_over_from_a_server_that_was_killed(
    tmp_path: Path, registry: FakeMLflow
) -> None:
    registry.aliases["champion"] = "1"
    path = tmp_path / "stable.sock"
    flags = ("--slot", "stable", "--registry", registry.url, "--socket", str(path))
    server = ServerProcess(tmp_path, *flags)
    server.stop(signal.SIGKILL)
    server = ServerProcess(tmp_path, *flags)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://stable") as http:
            answer = http.post("/predict", json=ROW).json()
        assert answer["scores"] == server.predict(ROW)["scores"] == [pytest.approx(expected(ROW), abs=1e-5)]
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, "whoever writes to a socket can connect"
    finally:
        server.close()


def test_without_a_version_it_is_alive_but_not_ready_and_names_the_reason(tmp_path: Path, registry: FakeMLflow) -> None:
    server = ServerProcess(
        tmp_path, "--slot", "canary", "--alias", "challenger", "--registry", registry.url, wait=False
    )
    try:
        ready, predict = server.http.get("/v2/health/ready"), server.http.post("/predict", json=ROW)
        assert (ready.status_code, predict.status_code) == (503, 503)
        wait_for(lambda: "challenger" in server.status()["reason"], "the reason to name the alias")
        assert predict.headers["retry-after"] == "1"
        registry.aliases["challenger"] = "2"
        wait_for_version(server, "2")
    finally:
        server.close()


def test_swaps_under_load_lose_no_request_and_mix_no_versions(server: ServerProcess, registry: FakeMLflow) -> None:
    stop, sent = Event(), rows(50)

    def call(_: int) -> set[str]:
        versions = set()
        for row in itertools.cycle(sent):
            answer = server.predict(row)
            assert answer["scores"][0] == pytest.approx(expected(row, BIASES[answer["version"]]), abs=1e-5)
            versions.add(answer["version"])
            if stop.is_set():
                return versions
        raise AssertionError

    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(call, n) for n in range(4)]
        try:
            for number in ("2", "3", "1", "2"):
                registry.aliases["champion"] = number
                wait_for_version(server, number)
        finally:
            stop.set()
        assert all(len(c.result()) == 3 for c in calls)
    assert server.metric("perennial_model_loads_total{") == 5


@pytest.mark.parametrize("name", ["model.onnx", "encoding.json", "manifest.json"])
def test_a_version_that_fails_to_load_leaves_the_old_one_serving(
    server: ServerProcess, registry: FakeMLflow, tmp_path: Path, name: str
) -> None:
    broken = tmp_path / "run-2" / name
    broken.write_bytes(broken.read_bytes() + b" ")
    registry.aliases["champion"] = "2"
    wait_for(lambda: (server.status()["reason"] or "").startswith("version 2 did not load"), "the error in /status")
    ready = server.http.get("/v2/health/ready")
    assert (ready.status_code, server.predict(ROW)["version"]) == (200, "1")
    assert name in ready.json()["reason"] and "digest" in ready.json()["reason"]
    assert server.metric('perennial_model_loads_total{slot="stable",model="flights",outcome="failed"}') == 1
    with pytest.raises(Unavailable, match=r"serves version 1 of flights; version 2 did not load"):
        HttpSlots({"stable": [server.url]}).await_version("stable", "flights", "2", timeout=0.1)
    registry.aliases["champion"] = "3"
    HttpSlots({"stable": [server.url]}).await_version("stable", "flights", "3", timeout=20)
    assert server.status()["reason"] is None


def test_alias_removed_or_registry_away_it_serves_on_also_after_a_restart(
    server: ServerProcess, registry: FakeMLflow, tmp_path: Path
) -> None:
    del registry.aliases["champion"]
    assert "names no version" in wait_for(lambda: server.status()["reason"], "the missing alias")
    assert server.predict(ROW)["version"] == "1"
    registry.close()
    wait_for(lambda: "does not answer" in (server.status()["reason"] or ""), "the registry's absence")
    assert server.http.get("/v2/health/ready").status_code == 200
    server.stop()
    again = ServerProcess(tmp_path, "--slot", "stable", "--registry", registry.url)
    try:
        assert again.predict(ROW)["version"] == "1"
    finally:
        again.close()


def test_slots_that_do_not_answer_are_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        HttpSlots({"stable": ["http://127.0.0.1:9"]}).await_version("stable", "flights", "1", timeout=0)


def test_sigterm_answers_the_requests_in_flight_then_ends(tmp_path: Path, registry: FakeMLflow) -> None:
    """Callers keep their connections, as a gateway does, which health tells to turn away while the server drains."""
    registry.aliases["champion"] = "1"
    server, stop = ServerProcess(tmp_path, "--slot", "stable", "--registry", registry.url, "--drain", "2"), Event()

    def call(_: int) -> int:
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            for n in itertools.count(1):
                assert http.post("/predict", json=ROW).status_code == 200
                if stop.is_set():
                    return n
        raise AssertionError

    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(call, n) for n in range(4)]
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.http.get("/v2/health/ready").status_code == 503, "not ready")
        assert server.status()["reason"] == "shutting down"
        stop.set()
        answered = sum(c.result() for c in calls)
    assert server.process.wait(timeout=20) == 0
    assert len(server.logged()) == answered
    server.close()


def test_log_line_holds_what_a_later_join_needs(server: ServerProcess) -> None:
    server.predict({**ROW, "carrier": "ZZ"}, **{"x-request-id": "call-7"})
    server.predict(ROW, ROW)
    assert server.stop() == 0
    first, *two = server.logged()
    assert first | {"at": 0, "ms": 0, "score": 0} == {
        "id": "call-7",
        "at": 0,
        "version": "1",
        "slot": "stable",
        "key": "ZZ|1545",
        "time": ROW["at"],
        "features": {**ROW, "carrier": "ZZ"},
        "score": 0,
        "ms": 0,
    }
    assert [line["id"].rsplit("-", 1)[1] for line in two] == ["0", "1"]


def test_kill_9_loses_no_line_that_was_written(server: ServerProcess) -> None:
    written = 'perennial_log_rows_total{slot="stable",model="flights",outcome="written"}'
    for total in (100, 200, 300):
        server.predict(*rows(100))
        wait_for(partial(lambda total: server.metric(written) == total, total), "the log to be written")
    server.stop(signal.SIGKILL)
    assert len(server.logged()) == 300


def test_a_log_that_cannot_be_written_stops_no_prediction_and_is_counted(tmp_path: Path, registry: FakeMLflow) -> None:
    registry.aliases["champion"] = "1"
    (tmp_path / "log").write_text("a file where the folder should be")
    server = ServerProcess(tmp_path, "--slot", "stable", "--registry", registry.url)
    try:
        server.predict(*rows(10))
        wait_for(
            lambda: server.metric('perennial_log_rows_total{slot="stable",model="flights",outcome="lost"}') == 10, ""
        )
        assert server.predict(ROW)["version"] == "1"
    finally:
        server.close()


def test_on_a_full_disk_it_serves_on_counts_what_is_lost_and_logs_again_once_there_is_room(tmp_path: Path) -> None:
    """The log lies on a disk of 128 KiB, which the server alone sees."""
    log = tmp_path / "log"
    log.mkdir()
    mount = f'mount -t tmpfs -o size=128k disk {log} && exec "$@"'
    under = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*under, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a disk of one's own needs unshare and the kernel's leave to mount one")
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    server = ServerProcess(tmp_path, "--slot", "stable", "--artifact", uri, under=under)
    log_folder = Path(f"/proc/{server.process.pid}/root{log}/flights/stable")
    count = 'perennial_log_rows_total{slot="stable",model="flights",outcome='
    written, lost = (partial(server.metric, f'{count}"{outcome}"') for outcome in ("written", "lost"))
    try:
        for total in range(1000, 4000, 1000):
            assert len(server.predict(*rows(1000))["scores"]) == 1000
            wait_for(partial(lambda total: written() + lost() == total, total), "all to be logged or lost")
        assert 0 < written() < 1000
        assert all(segment.stat().st_size for segment in log_folder.glob("*.jsonl"))
        before = written()
        for segment in log_folder.glob("*.jsonl"):
            segment.unlink()
        server.predict(*rows(10))
        wait_for(lambda: written() == before + 10, "the log to go on")
    finally:
        server.close()


def test_one_artifact_can_be_served_without_a_registry(tmp_path: Path) -> None:
    tags = write_artifact(tmp_path / "run")
    flags = ("--artifact", tags["artifact_uri"], "--digest", tags["artifact_digest"])
    server = ServerProcess(tmp_path, "--slot", "stable", *flags)
    try:
        assert server.predict(ROW)["scores"] == [pytest.approx(expected(ROW), abs=1e-5)]
    finally:
        server.close()


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    flags = ("--slot", "stable", "--artifact", uri)
    server = ServerProcess(tmp_path, *flags)
    try:
        command = [sys.executable, "-m", "include.server", "--model", "flights", "--log", str(tmp_path / "other")]
        second = subprocess.run(
            [*command, *flags, "--port", str(server.port)], check=False, capture_output=True, text=True
        )
        assert second.returncode == 1
        assert "address already in use" in second.stderr and "Traceback" not in second.stderr
    finally:
        server.close()


def test_a_shadow_slot_follows_an_alias_of_its_own(tmp_path: Path, registry: FakeMLflow) -> None:
    registry.aliases["shadow"] = "2"
    server = ServerProcess(tmp_path, "--slot", "shadow", "--registry", registry.url)
    try:
        assert {k: server.predict(ROW)[k] for k in ("version", "slot")} == {"version": "2", "slot": "shadow"}
    finally:
        server.close()


def test_a_share_of_the_requests_is_logged_the_same_ones_in_every_slot(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run", log_share=0.25)["artifact_uri"]
    logged_ids = {}
    for slot in ("stable", "canary"):
        server = ServerProcess(tmp_path, "--slot", slot, "--artifact", uri)
        for n in range(200):
            server.predict(ROW, **{"x-request-id": f"call-{n}"})
        assert server.stop() == 0
        logged_ids[slot] = {line["id"] for line in server.logged(slot)}
    assert logged_ids["stable"] == logged_ids["canary"]
    assert 25 <= len(logged_ids["stable"]) <= 75


def test_metrics_show_values_load_and_cache(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    server = ServerProcess(tmp_path, "--slot", "stable", "--artifact", uri, "--cache", "100")
    common = 'slot="stable",model="flights"'
    try:
        server.predict({**ROW, "carrier": "ZZ", "wind": None, "distance": 500}, ROW)
        server.predict(ROW)
        wait_for(lambda: server.metric(f"perennial_score_count{{{common}") == 3, "the values to be counted")
        own = f'{common},version="0",field'
        counted = {
            f'values_total{{{own}="carrier",kind="unknown"}}': 1,
            f'values_total{{{own}="wind",kind="missing"}}': 1,
            f'category_total{{{own}="carrier",value="UA"}}': 2,
            f'category_total{{{own}="origin",value="JFK"}}': 3,
            f'number_bucket{{{own}="distance",le="0"}}': 0,
            f'number_bucket{{{own}="distance",le="+Inf"}}': 3,
            f'number_sum{{{own}="distance"}}': 3300,
            f'number_count{{{own}="wind"}}': 2,
            f'cache_requests_total{{{common},outcome="hit"}}': 1,
            f'cache_requests_total{{{common},outcome="miss"}}': 1,
            f"queue_rows{{{common}}}": 0,
        }
        assert {line: server.metric(f"perennial_{line}") for line in counted} == counted
        assert server.metric(f"perennial_inflight_requests{{{common}}}") == 1
        assert 0 < server.metric("perennial_model_load_seconds") < 30
        assert 0 < server.metric("perennial_model_age_seconds") < 60
    finally:
        server.close()


def test_a_row_that_waits_longer_than_the_deadline_is_refused(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    server = ServerProcess(tmp_path, "--slot", "stable", "--artifact", uri, "--deadline", "0")
    try:
        answer = server.http.post("/predict", json=ROW)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "not scored within 0 s" in answer.json()["error"]
    finally:
        server.close()
