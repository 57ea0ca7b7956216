"""A tiny model artifact, a registry that answers as MLflow does, and the server as the process it is."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import DatasetColumns
from include.artifacts.model_manifest import ServingOptions, Signature, Tensor
from include.domain.features.encoding import Encoding
from tests.records import model_manifest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
ENCODING = Encoding(
    time="at",
    zone="America/New_York",
    time_parts=("hour", "month"),
    categorical=("carrier", "origin", "hour", "month"),
    numeric=("distance", "wind"),
    vocabulary={
        "carrier": {"UA": 2, "DL": 3, "B6": 4},
        "origin": {"JFK": 2, "EWR": 3},
        "hour": {str(h): h + 2 for h in range(24)},
        "month": {str(m): m + 1 for m in range(1, 13)},
    },
    knots={"distance": (0.0, 1000.0), "wind": (0.0, 30.0)},
)
KEYS = ("carrier", "flight")
ROW = {"at": "2013-03-01T12:00:00Z", "carrier": "UA", "origin": "JFK", "distance": 1400, "wind": 8.5, "flight": "1545"}


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return n rows as callers send them, with missing and unknown values among them."""
    rng = np.random.default_rng(seed)
    return [
        {
            "at": f"2013-{rng.integers(1, 13):02d}-{rng.integers(1, 28):02d}T{rng.integers(0, 24):02d}:30:00Z",
            "carrier": ["UA", "DL", "B6", "ZZ", None][rng.integers(5)],
            "origin": ["JFK", "EWR", ""][rng.integers(3)],
            "distance": [float(rng.integers(100, 3000)), None][rng.integers(2)],
            "wind": [float(rng.random() * 40), "12.5", None][rng.integers(3)],
            "flight": str(i),
        }
        for i in range(n)
    ]


def expected(row: Mapping[str, Any], bias: float = 0.0) -> float:
    """Return the tiny model's score of a row, computed without ONNX."""
    ids, numbers = ENCODING.encode({k: [v] for k, v in row.items()})
    offsets, weights = _category_weights()
    logit = weights[ids[0] + offsets].sum() + np.nan_to_num(numbers[0]) @ np.array([1e-4, 1e-2]) + bias
    return float(1 / (1 + np.exp(-logit)))


def _category_weights() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return where each field's weights begin, and one weight for each category of all fields."""
    sizes = ENCODING.sizes
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return offsets, np.random.default_rng(7).normal(0, 0.5, sum(sizes)).astype(np.float32)


def tiny_onnx(bias: float = 0.0) -> bytes:
    """Return the graph of sigmoid(sum of one weight a category + two weighted numbers + bias)."""
    offsets, weights = _category_weights()
    constants: dict[str, NDArray[Any]] = {
        "offsets": offsets,
        "table": weights,
        "axis": np.array([1]),
        "zero": np.array(0, np.float32),
        "weights": np.array([1e-4, 1e-2], np.float32),
        "bias": np.array(bias, np.float32),
    }
    steps = [
        ("Add", ["ids", "offsets"], "places"),
        ("Gather", ["table", "places"], "gathered"),
        ("ReduceSum", ["gathered", "axis"], "wide"),
        ("IsNaN", ["numbers"], "nan"),
        ("Where", ["nan", "zero", "numbers"], "clean"),
        ("MatMul", ["clean", "weights"], "deep"),
        ("Add", ["wide", "deep"], "sum"),
        ("Add", ["sum", "bias"], "logit"),
        ("Sigmoid", ["logit"], "score"),
    ]
    graph = helper.make_graph(
        [_node(*step) for step in steps],
        "tiny",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 4]),
            helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", 2]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _node(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    if operator == "ReduceSum":
        return helper.make_node(operator, inputs, [output], keepdims=0)
    return helper.make_node(operator, inputs, [output])


def write_artifact(folder: Path, bias: float = 0.0, log_share: float = 1.0) -> dict[str, str]:
    """Write an artifact as the trainer does, and return the tags that a registry keeps of it."""
    folder.mkdir(parents=True)
    files = {
        "model.onnx": tiny_onnx(bias),
        "encoding.json": json.dumps(ENCODING.to_dict()).encode(),
        "examples.json": json.dumps(rows(64, seed=1)).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = model_manifest(
        model="flights",
        run=folder.name,
        mlflow_run_id=None,
        columns=DatasetColumns("at", "late", KEYS, categorical=("carrier", "origin"), numeric=("distance", "wind")),
        signature=Signature(
            (Tensor("ids", "INT64", (-1, 4)), Tensor("numbers", "FP32", (-1, 2))), (Tensor("score", "FP32", (-1,)),)
        ),
        files={name: file_facts(folder / name) for name in files},
        serving=ServingOptions(log_share),
    )
    reference = store.write(folder / "manifest.json", manifest)
    return {"artifact_uri": reference.uri, "artifact_digest": reference.digest}


class FakeMLflow:
    """Answers the alias route with the statuses and bodies of MLflow 3.17. `versions` holds each version's tags."""

    def __init__(self) -> None:
        self.versions: dict[str, Mapping[str, str]] = {}
        self.aliases: dict[str, str] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = registry.answer(self.path)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        number = self.aliases.get(query.get("alias", ""))
        if parts.path != "/api/2.0/mlflow/registered-models/alias":
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}
        if number is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias not found."}
        tags = [{"key": k, "value": v} for k, v in self.versions[number].items()]
        return 200, {"model_version": {"name": query["name"], "version": number, "tags": tags}}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class ServerProcess:
    """`python -m include.server` on a free port, started by the command `under`; stderr goes to `<folder>/server.err`."""

    def __init__(self, folder: Path, *flags: str, wait: bool = True, under: Sequence[str] = ()) -> None:
        self.log = folder / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._errors = (folder / "server.err").open("ab")
        program = [*under, sys.executable, "-m", "include.server", "--model", "flights", "--port", str(self.port)]
        command = [*program, "--log", str(self.log), "--drain", "0.3", *flags]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._errors, stderr=self._errors, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        wait_for(lambda: self._answers("/v2/health/live"), "the server to answer")
        if wait:
            wait_for(lambda: self._answers("/v2/health/ready"), "the server to be ready")

    def predict(self, *sent_rows: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.http.post("/predict", json={"rows": list(sent_rows)}, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def status(self) -> dict[str, Any]:
        return dict(self.http.get("/status").json())

    def metric(self, prefix: str) -> float:
        """Return the sum of the samples whose line starts so; 0 if there is none."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(prefix))

    def logged(self, slot: str = "stable") -> list[dict[str, Any]]:
        files = sorted((self.log / "flights" / slot).glob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def stop(self, signal_number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=30)
        self.close()
        return code

    def close(self) -> None:
        self.http.close()
        self._errors.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, "the server has ended"
        try:
            return self.http.get(path).status_code == 200
        except httpx.TransportError:
            return False


def wait_for(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Return the condition's first true value; fail after that many seconds, naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port at which nothing listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
