"""The stack's processes under the real process manager."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.domain.errors import UserMistake
from include.local import processes, stack
from include.local.cpu_affinity import pinned
from include.settings import Settings, sockets_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Two real processes, running."""
    home = tmp_path / ("a deep folder with a long name, " * 4)
    home.mkdir()
    programs = {"sleeper": "sleep 1000", "parent": 'sh -c "sleep 1001 & sleep 1002; wait"'}
    processes.start(home, tmp_path, programs, dict(os.environ))
    await_state(home, "RUNNING")
    yield home
    processes.stop(home)


def await_state(home: Path, state: str) -> list[processes.ProcessStatus]:
    while True:
        rows = processes.running(home)
        if rows and all(r.state == state for r in rows):
            return rows


def test_each_process_is_reported_by_its_name(home: Path) -> None:
    assert {r.name for r in processes.running(home)} == {"sleeper", "parent"}


def test_a_killed_process_comes_back(home: Path) -> None:
    victim = next(p for p in processes.marked(home) if p.name() == "sleep")
    victim.kill()
    victim.wait()
    await_state(home, "RUNNING")


def test_stopping_leaves_nothing(home: Path) -> None:
    processes.stop(home)
    assert processes.marked(home) == []
    assert not sockets_of(home)
    assert processes.running(home) == []


def test_stopping_leaves_nothing_even_after_the_manager_was_killed(home: Path) -> None:
    pid = int((home / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([p for p in psutil.process_iter() if p.pid == pid], timeout=5)
    assert processes.marked(home)
    assert processes.stop(home) >= 2
    assert processes.marked(home) == []
    assert not (home / "supervisord.pid").exists()


def test_a_default_port_in_use_gives_way_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert stack.choose_ports(Settings(mlflow_port=port), {}).mlflow_port > port


def test_each_server_of_a_slot_is_a_process_on_a_port_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = taken.getsockname()[1]
        chosen = stack.choose_ports(Settings(servers=2, stable_port=second - 10), {})
    assert chosen.stable_port > second - 10
    programs = stack.programs(chosen)
    assert f"--port {chosen.stable_port} " in programs["stable"]
    assert f"--port {chosen.stable_port + 10} " in programs["stable-2"]
    assert programs.keys() > {"canary", "canary-2", "gateway"}


def test_no_one_else_of_the_serving_path_runs_on_a_stable_server_s_core() -> None:
    if len(cores := os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: all share it")
    command = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]

    def runs_on(name: str) -> set[int]:
        ended = subprocess.run([*pinned(Settings(), name), *command], check=True, capture_output=True, text=True)
        return set(map(int, ended.stdout.split()))

    assert len(stable := runs_on("stable")) == 1
    assert runs_on("canary") == runs_on("gateway") == cores - stable
    assert pinned(Settings(servers=len(cores)), "stable") == [], "none would be left for the gateway"
    programs = stack.programs(Settings())
    pins = {name: " ".join(pinned(Settings(), name)) for name in ("stable", "canary", "gateway")}
    assert all(programs[name].startswith(f"{pin} ") for name, pin in pins.items())
    assert "taskset" not in programs["scheduler"]


def test_a_port_asked_for_by_name_that_is_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserMistake, match=f"port {port} is in use; set PERENNIAL_MLFLOW_PORT"):
            stack.choose_ports(Settings(mlflow_port=port), {"PERENNIAL_MLFLOW_PORT": str(port)})


def test_a_home_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserMistake, match=r"cannot be written .* PERENNIAL_HOME"):
        stack.check_machine(tmp_path / "file" / "home")


def test_a_home_is_closed_to_other_accounts(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    stack.check_machine(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
