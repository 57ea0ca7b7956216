"""Tracking while MLflow is away: nothing is lost and nothing is sent twice."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from include.trainer.job import TrackingTarget
from include.trainer.tracking.tracker import Tracker


class FakeMLflow:
    """An MLflow server that lists the calls that it received; while `away` it answers 503."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.away = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                call = self.path.removeprefix("/api/2.0/mlflow/")
                if not fake.away:
                    fake.calls.append((call, body))
                self.answer({"run": {"info": {"run_id": "r1"}}} if call == "runs/create" else {})

            def do_GET(self) -> None:
                self.answer({"experiment": {"experiment_id": "7"}})

            def answer(self, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(503 if fake.away else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def logged(self) -> list[tuple[str, float]]:
        batches = [body for call, body in self.calls if call == "runs/log-batch"]
        return [(metric["key"], metric["value"]) for body in batches for metric in body.get("metrics", ())]


@pytest.fixture
def mlflow() -> Iterator[FakeMLflow]:
    fake = FakeMLflow()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def target(uri: str) -> TrackingTarget:
    return TrackingTarget(uri, "toy", "first dcn", {"run": "first"})


def test_run_is_made_in_its_experiment_with_its_tags(tmp_path: Path, mlflow: FakeMLflow) -> None:
    tracker = Tracker(tmp_path, target(mlflow.uri))
    tracker.log_metrics({"loss": 0.5}, 1)
    tracker.close("FINISHED")
    created = dict(mlflow.calls)["runs/create"]
    assert (created["experiment_id"], created["run_name"]) == ("7", "first dcn")
    assert created["tags"] == [{"key": "run", "value": "first"}]
    assert dict(mlflow.calls)["runs/update"]["status"] == "FINISHED"
    assert tracker.run_id == "r1"


def test_what_was_recorded_while_away_is_sent_later_and_once(
    tmp_path: Path, mlflow: FakeMLflow, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(tmp_path, target(mlflow.uri))
    tracker.log_metrics({"loss": 0.5}, 1)
    mlflow.away = True
    tracker.log_metrics({"loss": 0.4}, 2)
    tracker.log_metrics({"loss": 0.3}, 3)
    assert capsys.readouterr().out.count("training goes on") == 1
    mlflow.away = False
    tracker.close("FINISHED")
    assert mlflow.logged() == [("loss", 0.5), ("loss", 0.4), ("loss", 0.3)]


def test_next_start_sends_what_was_left_to_the_same_run(tmp_path: Path, mlflow: FakeMLflow) -> None:
    Tracker(tmp_path, target(mlflow.uri)).log_metrics({"loss": 0.5}, 1)
    mlflow.away = True
    first = Tracker(tmp_path, target(mlflow.uri))
    first.log_metrics({"loss": 0.4}, 2)
    first.close("KILLED")
    mlflow.away = False
    Tracker(tmp_path, target(mlflow.uri)).close("FINISHED")
    assert mlflow.logged() == [("loss", 0.5), ("loss", 0.4)]
    assert [call for call, _ in mlflow.calls].count("runs/create") == 1


def test_without_a_server_training_goes_on_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(tmp_path, target("http://127.0.0.1:9"))
    tracker.log_metrics({"loss": 0.5}, 1)
    tracker.close("FINISHED")
    assert tracker.run_id is None
    assert "2 records wait in" in capsys.readouterr().out


def test_nan_is_left_out(tmp_path: Path, mlflow: FakeMLflow) -> None:
    Tracker(tmp_path, target(mlflow.uri)).log_metrics({"auc": float("nan"), "loss": 1.0}, 1)
    assert mlflow.logged() == [("loss", 1.0)]


def test_a_value_longer_than_mlflow_takes_is_cut(tmp_path: Path, mlflow: FakeMLflow) -> None:
    tracker = Tracker(tmp_path, target(mlflow.uri))
    tracker.set_tags({"uncommitted": "x" * 9000})
    tracker.log_params({"training.search": "y" * 9000})
    sent = [entry["value"] for _, body in mlflow.calls for part in ("tags", "params") for entry in body.get(part, ())]
    assert [len(value) for value in sent if len(value) > 100] == [5000, 5000]
