"""Other model servers with the same ONNX model on the same machine: each in an environment of its own, from a pinned list.

They are given encoded tensors, so unlike Perennial's server they need not encode raw features.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
UV = Path(sys.executable).parent / "uv"
#: Environments are kept from run to run; they are told apart by the digest of their list.
ENVIRONMENTS = Path(tempfile.gettempdir()) / "perennial-peers"
PORT = 19100
V2 = "/v2/models/flights/infer"


class Missing(Exception):
    """The peer cannot run here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """`at_least`: how many times its requests a second Perennial's must be, in the measurement that it stands `beside`."""

    name: str
    at_least: float
    path: str = V2
    beside: str = "tensors"


#: TorchServe is a front end and workers of its own, and keeps every core busy; the others one or little more.
PEERS = (
    Peer("kserve", 5),
    Peer("mlserver", 5),
    Peer("torchserve", 4, "/predictions/flights", "every_core"),
    Peer("triton", 1.5),
)


def install(peer: Peer) -> Path:
    """The peer's environment. Raises Missing."""
    wanted = (HERE / f"{peer.name}.txt").read_text()
    folder = ENVIRONMENTS / peer.name
    if (folder / "installed.txt").exists() and (folder / "installed.txt").read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    variables = {**os.environ, "VIRTUAL_ENV": str(folder)}
    for command in (
        ["venv", "-q", "-p", sys.executable, folder],
        ["pip", "install", "-q", "-r", HERE / f"{peer.name}.txt"],
    ):
        done = subprocess.run([UV, *command], env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(
                f"{peer.name} cannot be installed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
    (folder / "installed.txt").write_text(wanted)
    return folder


@contextmanager
def serving(peer: Peer, onnx: Path, folder: Path, first: bytes) -> Iterator[tuple[list[psutil.Process], float]]:
    """The peer's processes, ready, and the score it gives to the first body. Raises Missing."""
    environment = install(peer)
    command = COMMANDS[peer.name](environment / "bin", onnx, folder)
    variables = {
        **os.environ,
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
        # Triton's Python backend loads the interpreter as a library, and must find the one of its environment.
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
    }
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=said, start_new_session=True)
    try:
        score = _first_score(peer, process, first, folder / "said.txt")
        yield _group(process.pid), score
    finally:
        _stop(process)


def _group(leader: int) -> list[psutil.Process]:
    """It and what it started, also where that has another parent by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It and what it started: they are a process group of their own."""
    for sign, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


def _first_score(peer: Peer, process: subprocess.Popen[bytes], body: bytes, said: Path) -> float:
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{PORT}{peer.path}",
                content=body,
                timeout=10,
                trust_env=False,
                headers={"content-type": "application/json"},
            )
            if answer.is_success:
                return _score(answer.json())
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    last = (said.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise Missing(f"{peer.name} does not get ready: {last[:200]}")


def _score(answer: Any) -> float:
    return float(answer["score"] if "score" in answer else answer["outputs"][0]["data"][0])


def bodies(peer: Peer, ids: np.ndarray, numbers: np.ndarray) -> list[bytes]:
    """One request a row, in the peer's own form."""
    return [_body(peer, row.tolist(), values.tolist()) for row, values in zip(ids, numbers, strict=True)]


def _body(peer: Peer, ids: Sequence[int], numbers: Sequence[float]) -> bytes:
    if peer.path != V2:
        return json.dumps({"ids": ids, "numbers": numbers}).encode()
    tensors = (("ids", "INT64", ids), ("numbers", "FP32", numbers))
    inputs = [{"name": n, "datatype": kind, "shape": [1, len(values)], "data": values} for n, kind, values in tensors]
    return json.dumps({"inputs": inputs}).encode()


def _kserve(programs: Path, onnx: Path, _: Path) -> list[Any]:
    return [programs / "python", HERE / "kserve_server.py", onnx, str(PORT)]


def _triton(programs: Path, onnx: Path, _: Path) -> list[Any]:
    return [programs / "python", HERE / "triton_server.py", onnx, str(PORT)]


def _mlserver(programs: Path, onnx: Path, folder: Path) -> list[Any]:
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))
    model = {
        "name": "flights",
        "implementation": "mlserver_model.Flights",
        "parameters": {"uri": str(onnx)},
        "max_batch_size": 64,
        "max_batch_time": 0.001,
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [programs / "mlserver", "start", folder]


def _torchserve(programs: Path, onnx: Path, folder: Path) -> list[Any]:
    store = folder / "store"
    store.mkdir()
    archive = [
        programs / "torch-model-archiver",
        "--model-name",
        "flights",
        "--version",
        "1.0",
        "--serialized-file",
        onnx,
        "--handler",
        HERE / "torchserve_handler.py",
        "--extra-files",
        HERE / "scoring.py",
        "--export-path",
        store,
    ]
    done = subprocess.run(archive, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"torchserve: its archiver failed: {done.stderr.strip().splitlines()[-1][:200]}")
    cores = os.cpu_count() or 1
    model = {
        "1.0": {
            "defaultVersion": True,
            "marName": "flights.mar",
            "minWorkers": cores,
            "maxWorkers": cores,
            "batchSize": 64,
            "maxBatchDelay": 1,
        }
    }
    addresses = {name: f"http://127.0.0.1:{PORT + i}" for i, name in enumerate(("inference", "management", "metrics"))}
    lines = [
        *(f"{name}_address={address}" for name, address in addresses.items()),
        f"grpc_inference_port={PORT + 3}",
        f"grpc_management_port={PORT + 4}",
        f"model_store={store}",
        "load_models=all",
        "disable_token_authorization=true",
        f"models={json.dumps({'flights': model})}",
    ]
    (folder / "config.properties").write_text("\n".join(lines))
    return [programs / "torchserve", "--foreground", "--start", "--ncs", "--ts-config", folder / "config.properties"]


COMMANDS = {"kserve": _kserve, "mlserver": _mlserver, "torchserve": _torchserve, "triton": _triton}
