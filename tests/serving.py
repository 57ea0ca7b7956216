"""A tiny model artifact, a registry that answers as MLflow does, and the server as the process it is."""

import hashlib
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
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from include.domain.features.encoding import Encoding

ROOT = Path(__file__).resolve().parent.parent
ENCODING = Encoding(
    time="at", zone="America/New_York", time_parts=("hour", "month"),
    categorical=("carrier", "origin", "hour", "month"), numeric=("distance", "wind"),
    vocabulary={
        "carrier": {"UA": 2, "DL": 3, "B6": 4}, "origin": {"JFK": 2, "EWR": 3},
        "hour": {str(h): h + 2 for h in range(24)}, "month": {str(m): m + 1 for m in range(1, 13)},
    },
    knots={"distance": (0.0, 1000.0), "wind": (0.0, 30.0)},
)  # fmt: skip
KEYS = ("carrier", "flight")
ROW = {"at": "2013-03-01T12:00:00Z", "carrier": "UA", "origin": "JFK", "distance": 1400, "wind": 8.5, "flight": "1545"}


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as callers send them, missing and unknown values among them."""
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
    """What the tiny model scores, reckoned without ONNX."""
    ids, numbers = ENCODING.encode({k: [v] for k, v in row.items()})
    offsets, table = _table()
    logit = table[ids[0] + offsets].sum() + np.nan_to_num(numbers[0]) @ np.array([1e-4, 1e-2]) + bias
    return float(1 / (1 + np.exp(-logit)))


def _table() -> tuple[np.ndarray, np.ndarray]:
    sizes = ENCODING.sizes
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return offsets, np.random.default_rng(7).normal(0, 0.5, sum(sizes)).astype(np.float32)


def tiny_onnx(bias: float = 0.0) -> bytes:
    """sigmoid(sum of one weight a category + two weighted numbers + bias)."""
    offsets, table = _table()
    constants = {
        "offsets": offsets, "table": table, "axis": np.array([1]), "zero": np.array(0, np.float32),
        "weights": np.array([1e-4, 1e-2], np.float32), "bias": np.array(bias, np.float32),
    }  # fmt: skip
    steps = [
        ("Add", ["ids", "offsets"], "places"), ("Gather", ["table", "places"], "looked"),
        ("ReduceSum", ["looked", "axis"], "wide"), ("IsNaN", ["numbers"], "nan"),
        ("Where", ["nan", "zero", "numbers"], "clean"), ("MatMul", ["clean", "weights"], "deep"),
        ("Add", ["wide", "deep"], "sum"), ("Add", ["sum", "bias"], "logit"), ("Sigmoid", ["logit"], "score"),
    ]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], **({"keepdims": 0} if op == "ReduceSum" else {})) for op, i, o in steps],
        "tiny",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 4]),
         helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_artifact(folder: Path, bias: float = 0.0, **more: Any) -> dict[str, str]:
    """An artifact as the trainer leaves it, with `more` in its manifest; the tags that a registry keeps of it."""
    folder.mkdir(parents=True)
    files = {
        "model.onnx": tiny_onnx(bias),
        "encoding.json": json.dumps(ENCODING.to_dict()).encode(),
        "examples.json": json.dumps(rows(64, seed=1)).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": 1, "model": "flights", "family": "dcn", "run": folder.name, "mlflow_run_id": None,
        "files": {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()},
        "signature": {
            "inputs": [{"name": "ids", "datatype": "INT64", "shape": [-1, 4]},
                       {"name": "numbers", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1]}],
        },
        "columns": {"time": "at", "label": "late", "keys": list(KEYS), "categorical": ["carrier", "origin"],
                    "numeric": ["distance", "wind"]},
        **more,
    }  # fmt: skip
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    return {"artifact_uri": str(folder / "manifest.json"), "artifact_digest": hashlib.sha256(data).hexdigest()}


class Registry:
    """Answers the alias route with the statuses and bodies that MLflow 3.17 was seen to answer."""

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
        asked = {k: v[0] for k, v in parse_qs(parts.query).items()}
        number = self.aliases.get(asked.get("alias", ""))
        if parts.path != "/api/2.0/mlflow/registered-models/alias":
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}
        if number is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias not found."}
        tags = [{"key": k, "value": v} for k, v in self.versions[number].items()]
        return 200, {"model_version": {"name": asked["name"], "version": number, "tags": tags}}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Server:
    """`python -m include.server` on a free port, started by the command `under`; stderr goes to `<folder>/server.err`."""

    def __init__(self, folder: Path, *flags: str, wait: bool = True, under: Sequence[str] = ()) -> None:
        self.log = folder / "log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._errors = (folder / "server.err").open("ab")
        command = [*under, sys.executable, "-m", "include.server", "--model", "flights", "--port", str(self.port),
                   "--log", str(self.log), "--drain", "0.3", *flags]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._errors, stderr=self._errors, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        await_(lambda: self._answers("/v2/health/live"), "the server to answer")
        if wait:
            await_(lambda: self._answers("/v2/health/ready"), "the server to be ready")

    def predict(self, *given: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.http.post("/predict", json={"rows": list(given)}, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def status(self) -> dict[str, Any]:
        return dict(self.http.get("/status").json())

    def metric(self, line: str) -> float:
        """The value of the metric whose line starts so; 0 where there is none."""
        found = [x for x in self.http.get("/metrics").text.splitlines() if x.startswith(line)]
        return sum(float(x.rsplit(" ", 1)[1]) for x in found)

    def logged(self, slot: str = "stable") -> list[dict[str, Any]]:
        files = sorted((self.log / "flights" / slot).glob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
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


def await_(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
