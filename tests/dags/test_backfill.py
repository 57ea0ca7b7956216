"""Airflow's own backfill lands, validates and builds; the registry and live traffic do not learn of it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from include.domain.errors import Unavailable
from include.settings import ROOT
from include.spec.loading import find
from include.wiring import parts

SPEC = """
name: toy
description: Is y true?
source: {path: inbox/toy.csv, format: csv}
columns: {time: at, label: y, keys: [key], numeric: [x], categorical: [c]}
approval: {mode: auto}
schedule: {start: 2026-01-01T00:00:00Z, end: 2026-01-05T00:00:00Z}
"""
START, DAY, DAYS = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1), 4
#: All by which a registry, a gateway or a model server could be reached.
PORTS = ("MLFLOW", "GATEWAY", "GATEWAY_ADMIN", "STABLE", "CANARY")
BULK = json.dumps({"start": START.isoformat(), "end": (START + DAYS * DAY).isoformat()})
COMMANDS = (
    "dags unpause --yes toy.data",
    "backfill create --dag-id toy.data --from-date 2026-01-01 --to-date 2026-01-02 --max-active-runs 2",
    f"dags trigger toy.data --run-id bulk --conf '{BULK}'",
)


@dataclass(frozen=True)
class Listener:
    """The one port on which registry, gateway and servers seem to listen, and what was sent to it."""

    port: int
    requests: list[str]


@pytest.fixture
def listener() -> Iterator[Listener]:
    requests: list[str] = []

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            requests.append(self.request.recv(100).decode("latin-1"))

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Listener(server.server_address[1], requests)
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: Listener) -> Path:
    for folder in ("models", "inbox", "gateway/dynamic"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models" / "toy.yaml").write_text(SPEC)
    times = [(day, hour, START + day * DAY + timedelta(hours=hour)) for day in range(DAYS) for hour in range(24)]
    rows = [f"{time.isoformat()},{day}-{hour},{hour % 2},1.5,a" for day, hour, time in times]
    (tmp_path / "inbox" / "toy.csv").write_text("\n".join(["at,key,y,x,c", *rows]) + "\n")
    (tmp_path / "gateway" / "dynamic" / "toy.yml").write_text("http: {services: {}}\n")
    ports = {f"{name}_PORT": listener.port for name in PORTS}
    for name, value in {"HOME": tmp_path, "MODELS": tmp_path / "models", **ports}.items():
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    return tmp_path


def scheduled(home: Path, folder: Path) -> list[dict[str, Any]]:
    """Run the commands and Airflow's scheduler on a database in the folder; return what became of every run."""
    airflow = {
        "AIRFLOW_HOME": folder,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": ROOT / "dags",
        "AIRFLOW__CORE__PLUGINS_FOLDER": ROOT / "plugins",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.01",
        "PYTHONPATH": ROOT,
    }
    command = [sys.executable, "-m", "tests.dags.scheduler", str(folder / "runs.json"), *COMMANDS]
    environment = {**os.environ, **{name: str(value) for name, value in airflow.items()}}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]
    return list(json.loads((folder / "runs.json").read_text()))


def files(home: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files but those that a data run is there to write."""
    own = ("inbox", "models", "tables", "records", "reports", "online")
    others = [path for path in home.rglob("*") if path.is_file() and path.relative_to(home).parts[0] not in own]
    return {str(path.relative_to(home)): (path.read_bytes(), path.stat().st_mtime_ns) for path in others}


def test_a_backfill_builds_features_and_neither_asks_nor_changes_registry_and_gateway(
    home: Path, listener: Listener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = files(home)
    assert list(before) == ["gateway/dynamic/toy.yml"]
    runs = scheduled(home, tmp_path_factory.mktemp("airflow"))
    assert {run["dag"] for run in runs} == {"toy.data"}
    assert [run["start"] for run in runs if run["type"] == "backfill"] == [
        (START + day * DAY).isoformat() for day in range(2)
    ]
    assert [run["type"] for run in runs if run["type"] != "scheduled"] == ["backfill", "backfill", "manual"]
    for run in runs:
        assert (run["state"], set(run["tasks"].values())) == ("success", {"success"}), run
    assert len(parts().tables(find("toy", home / "models")).windows("features")) == DAYS
    assert listener.requests == []
    assert files(home) == before


def test_whoever_asks_the_registry_or_the_gateway_is_noticed(home: Path, listener: Listener) -> None:
    for use in (
        lambda: parts().registry().version_by_alias("toy", "champion"),
        lambda: parts().signals().request_counts("toy", 1.0),
    ):
        with pytest.raises(Unavailable):
            use()
    assert {line.split("/")[1] for line in listener.requests} >= {"api", "metrics HTTP"}
