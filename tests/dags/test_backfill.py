"""A backfill lands, validates and builds; the registry and live traffic do not learn of it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.context import set_current_context

from include.domain.errors import Unavailable
from include.settings import ROOT
from include.spec.loading import find
from include.wiring import parts

pytestmark = pytest.mark.filterwarnings("ignore")  # of Great Expectations' own making

SPEC = """
name: toy
description: Is y true?
source: {path: inbox/toy.csv, format: csv}
columns: {time: at, label: y, keys: [key], numeric: [x], categorical: [c]}
approval: {mode: auto}
schedule: {start: 2026-01-01T00:00:00Z}
"""
START, DAY, DAYS = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1), 4
#: All by which a registry, a gateway or a model server could be reached.
PORTS = ("MLFLOW", "GATEWAY", "GATEWAY_ADMIN", "STABLE", "CANARY")


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """What is sent to the port on which everything seems to listen; first its number, for `home` to take."""
    seen: list[str] = []

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            seen.append(self.request.recv(100).decode("latin-1"))

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.append(str(server.server_address[1]))
    yield seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy.yaml").write_text(SPEC)
    (tmp_path / "inbox").mkdir()
    rows = [f"{(START + d * DAY + n * timedelta(hours=1)).isoformat()},{d}-{n},{n % 2},1.5,a"
            for d in range(DAYS) for n in range(24)]  # fmt: skip
    (tmp_path / "inbox" / "toy.csv").write_text("\n".join(["at,key,y,x,c", *rows]) + "\n")
    (tmp_path / "gateway" / "dynamic").mkdir(parents=True)
    (tmp_path / "gateway" / "dynamic" / "toy.yml").write_text("http: {services: {}}\n")
    port = asked.pop()
    given = {"HOME": tmp_path, "MODELS": tmp_path / "models"} | {f"{name}_PORT": port for name in PORTS}
    for name, value in given.items():
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    return tmp_path


def run(run_id: str, **context: Any) -> None:
    """The data DAG's tasks in their order, as a worker calls them."""
    bag = DagBag(str(ROOT / "dags" / "land_data.py"), collect_dags=True)
    assert not bag.import_errors
    for task in bag.dags["toy.data"].topological_sort():
        with set_current_context({"run_id": run_id, "params": {}, **context}):
            task.python_callable(*task.op_args, **task.op_kwargs)


def files(home: Path) -> dict[str, tuple[bytes, int]]:
    """All but what a data run is there to write."""
    own = ("inbox", "models", "tables", "records", "reports", "online")
    there = [p for p in home.rglob("*") if p.is_file() and p.relative_to(home).parts[0] not in own]
    return {str(p.relative_to(home)): (p.read_bytes(), p.stat().st_mtime_ns) for p in there}


def test_neither_the_registry_nor_the_gateway_is_asked_or_changed(home: Path, asked: list[str]) -> None:
    before = files(home)
    assert list(before) == ["gateway/dynamic/toy.yml"]
    for day in range(2):
        run(f"backfill {day}", data_interval_start=START + day * DAY, data_interval_end=START + (day + 1) * DAY)
    run("in bulk", params={"start": START.isoformat(), "end": (START + DAYS * DAY).isoformat()})
    tables = parts().tables(find("toy", home / "models"))
    assert len(tables.windows("features")) == DAYS
    assert asked == []
    assert files(home) == before


def test_whoever_asks_the_registry_or_the_gateway_is_seen(home: Path, asked: list[str]) -> None:
    for use in (lambda: parts().registry().alias("toy", "champion"), lambda: parts().signals().counts("toy", 1.0)):
        with pytest.raises(Unavailable):
            use()
    assert {line.split("/")[1] for line in asked} >= {"api", "metrics HTTP"}
