"""Other model servers with the same ONNX model on the same machine: each in an environment of its own, from a pinned list.

They are sent encoded tensors, so unlike Perennial's server they need not encode raw features.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
UV = Path(sys.executable).parent / "uv"
#: Environments are used again by later runs, as long as their list of packages is the same.
ENVIRONMENTS = Path(tempfile.gettempdir()) / "perennial-peers"
PORT = 19100
#: The path of the Open Inference Protocol.
V2 = "/v2/models/flights/infer"


class Missing(Exception):
    """The peer cannot run here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """A model server to compare with.

    Perennial must answer `at_least` that many times its requests a second, in the measurement named by `beside`.
    """

    name: str
    at_least: float
    path: str = V2
    beside: str = "tensors"


#: TorchServe has a front end and workers, and keeps every core busy; the others use one core or little more.
PEERS = (
    Peer("kserve", 5),
    Peer("mlserver", 5),
    Peer("torchserve", 4, "/predictions/flights", "every_core"),
    Peer("triton", 1.5),
)


def install(peer: Peer) -> Path:
    """Return the peer's environment, installed now or by an earlier run. Raises Missing."""
    requirements = HERE / f"{peer.name}.txt"
    folder = ENVIRONMENTS / peer.name
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "-q", "-p", sys.executable, folder, environment=folder)
    _uv("pip", "install", "-q", "-r", requirements, environment=folder)
    installed.write_text(requirements.read_text())
    return folder


def _uv(*arguments: str | Path, environment: Path) -> None:
    variables = {**os.environ, "VIRTUAL_ENV": str(environment)}
    process = subprocess.run([UV, *arguments], env=variables, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Missing(f"{environment.name} cannot be installed: {reason}")


@contextmanager
def serving(peer: Peer, onnx: Path, folder: Path, first_body: bytes) -> Iterator[tuple[list[psutil.Process], float]]:
    """Yield the peer's processes once it is ready, and its score of the first body. Raises Missing."""
    programs = install(peer) / "bin"
    command = COMMANDS[peer.name](programs, onnx, folder)
    variables = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
        # Triton's Python backend loads the interpreter as a library, and must find the one of its environment.
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
    }
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        score = _await_score(peer, process, first_body, log)
        yield _process_group(process.pid), score
    finally:
        _stop(process)


def _process_group(leader: int) -> list[psutil.Process]:
    """Return the process and all that it started, also those that have another parent by now."""
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader:
                members.append(process)
    return members


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process and all that it started, which are a process group."""
    for signal_number, timeout in ((signal.SIGTERM, 20), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=timeout)


def _await_score(peer: Peer, process: subprocess.Popen[bytes], body: bytes, log: Path) -> float:
    deadline = time.monotonic() + 180
    headers = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{PORT}{peer.path}"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = httpx.post(url, content=body, timeout=10, trust_env=False, headers=headers)
            if answer.is_success:
                return _score(answer.json())
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    last_line = (log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
    raise Missing(f"{peer.name} does not get ready: {last_line[:200]}")


def _score(answer: Any) -> float:
    return float(answer["score"] if "score" in answer else answer["outputs"][0]["data"][0])


def bodies(peer: Peer, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> list[bytes]:
    """Return one request a row, in the peer's own form."""
    return [_body(peer, row.tolist(), values.tolist()) for row, values in zip(ids, numbers, strict=True)]


def _body(peer: Peer, ids: Sequence[int], numbers: Sequence[float]) -> bytes:
    if peer.path != V2:
        return json.dumps({"ids": ids, "numbers": numbers}).encode()
    tensors: tuple[tuple[str, str, Sequence[float]], ...] = (("ids", "INT64", ids), ("numbers", "FP32", numbers))
    inputs = [{"name": n, "datatype": kind, "shape": [1, len(values)], "data": values} for n, kind, values in tensors]
    return json.dumps({"inputs": inputs}).encode()


def _kserve(programs: Path, onnx: Path, _: Path) -> list[str]:
    return [str(programs / "python"), str(HERE / "kserve_server.py"), str(onnx), str(PORT)]


def _triton(programs: Path, onnx: Path, _: Path) -> list[str]:
    return [str(programs / "python"), str(HERE / "triton_server.py"), str(onnx), str(PORT)]


def _mlserver(programs: Path, onnx: Path, folder: Path) -> list[str]:
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))
    model = {
        "name": "flights",
        "implementation": "mlserver_model.MLServerFlights",
        "parameters": {"uri": str(onnx)},
        "max_batch_size": 64,
        "max_batch_time": 0.001,
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [str(programs / "mlserver"), "start", str(folder)]


def _torchserve(programs: Path, onnx: Path, folder: Path) -> list[str]:
    store = folder / "store"
    store.mkdir()
    archiver = [programs / "torch-model-archiver", "--model-name", "flights", "--version", "1.0"]
    files = [
        "--serialized-file",
        onnx,
        "--handler",
        HERE / "torchserve_handler.py",
        "--extra-files",
        HERE / "scoring.py",
    ]
    process = subprocess.run([*archiver, *files, "--export-path", store], capture_output=True, text=True, check=False)
    if process.returncode:
        raise Missing(f"torchserve: its archiver failed: {process.stderr.strip().splitlines()[-1][:200]}")
    workers = os.cpu_count() or 1
    version = {
        "defaultVersion": True,
        "marName": "flights.mar",
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": 64,
        "maxBatchDelay": 1,
    }
    addresses = {name: f"http://127.0.0.1:{PORT + i}" for i, name in enumerate(("inference", "management", "metrics"))}
    lines = [
        *(f"{name}_address={address}" for name, address in addresses.items()),
        f"grpc_inference_port={PORT + 3}",
        f"grpc_management_port={PORT + 4}",
        f"model_store={store}",
        "load_models=all",
        "disable_token_authorization=true",
        f"models={json.dumps({'flights': {'1.0': version}})}",
    ]
    configuration = folder / "config.properties"
    configuration.write_text("\n".join(lines))
    start = [str(programs / "torchserve"), "--foreground", "--start", "--ncs", "--ts-config"]
    return [*start, str(configuration)]


#: Makes a peer's command line from its environment's programs, the ONNX file, and a folder for its configuration.
PeerCommand = Callable[[Path, Path, Path], list[str]]
COMMANDS: dict[str, PeerCommand] = {
    "kserve": _kserve,
    "mlserver": _mlserver,
    "torchserve": _torchserve,
    "triton": _triton,
}
