"""Probe: the model server as a process of its own, which scores row by row over HTTP."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from include.artifacts.store import Reference
from include.domain.errors import Unavailable
from include.domain.features.online_features import LandedSums
from include.online_store.opening import open_store
from include.ports.serving import ProbeResult

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
#: The file with what the server prints.
SERVER_LOG = "server.log"
#: Requests that are not timed: the first ones open the connection and fill caches.
WARM_UP = 20


class ServerProbe:
    """Implements `ports.serving.Probe` with a server that must be ready within `patience` seconds."""

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience

    def score(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], landed_sums: Sequence[LandedSums] = ()
    ) -> ProbeResult:
        """Send these rows, one a request. Raises Unavailable with the server's own words."""
        with tempfile.TemporaryDirectory() as folder:
            open_store(f"{folder}/online", model).land(landed_sums, oldest="")
            return self._score(model, artifact, rows, Path(folder))

    def _score(self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], folder: Path) -> ProbeResult:
        with _started_server(model, artifact, folder) as (process, url):
            with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
                self._await_ready(client, process, folder / SERVER_LOG)
                for row in rows[:WARM_UP]:
                    _request(client, row)
                answers = [_request(client, row) for row in rows]
            memory = psutil.Process(process.pid).memory_info().rss / 1e6
        scores, seconds = np.array(answers, dtype=np.float64).reshape(-1, 2).T
        return ProbeResult(scores, float(np.quantile(seconds, 0.99)) * 1000 if len(rows) else float("nan"), memory)

    def _await_ready(self, client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + self._patience
        while not _ready(client):
            if process.poll() is not None or time.monotonic() > deadline:
                last = (log.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed nothing"])[-1]
                raise Unavailable(f"the model server did not get ready in {self._patience:g} s: {last}")
            time.sleep(0.05)


@contextmanager
def _started_server(model: str, artifact: Reference, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield the process of a server and its URL, and kill it afterwards."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "include.server", "--slot", "probe", "--model", model, "--artifact", artifact.uri]
    command += ["--digest", artifact.digest, "--host", HOST, "--port", str(port), "--log", str(folder / "log")]
    command += ["--store", str(folder / "online")]
    with (folder / SERVER_LOG).open("wb") as log:
        process = subprocess.Popen([*command, "--drain", "0"], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process, f"http://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").is_success
    except httpx.TransportError:
        return False


def _request(client: httpx.Client, row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the row's score and the seconds it took. Raises Unavailable for anything but a score."""
    start = time.perf_counter()
    try:
        answer = client.post("/predict", json=dict(row))
    except httpx.TransportError as error:
        raise Unavailable(f"the model server went away: {error}") from None
    seconds = time.perf_counter() - start
    if not answer.is_success:
        raise Unavailable(f"the model server answered {answer.status_code}: {answer.text[:200]}")
    return float(answer.json()["scores"][0]), seconds
