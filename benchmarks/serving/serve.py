"""Single-row predictions of flights: two model servers behind the gateway at 90/10, all and the callers on one machine.

`make bench-serve`: through the gateway, direct, and beside other model servers with the same ONNX model. The model is the
flights spec's DCN with its first, random weights: serving costs the same as trained, and its scores can be compared with
torch's. `python -m benchmarks serve soak` lets it run for an hour. The last line is one JSON object with the figures, the
bounds and `holds`. `ceiling` is what the same gateway and callers reach, in the same run, before servers that do nothing;
`cpu_us` is each process's CPU time for a request. Peers are given encoded tensors, and what they are compared with is the
server's answer to the very tensors (`tensors`), each row logged; beside one that keeps every core busy by itself stands a slot with
a server for each core (`every_core`), as PERENNIAL_SERVERS starts them. `raw_times` compares with raw rows, which only this server
reads, checks, encodes and looks the past up for. Slots and gateway run on the cores that `make up` gives them, and the gateway's
callers on the gateway's. A closed loop is driven by wrk where it is installed (on Debian: apt-get install wrk), else by load.py.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.serving import peers
from benchmarks.serving.data import Prepared, prepare
from benchmarks.serving.peers.scoring import Session
from benchmarks.serving.stack import SETTINGS, hollow, server, servers, stack
from include.local.cpu_affinity import pinned
from include.settings import ROOT, Settings

BOUNDS = {"rps": 10_000, "p99_ms": 50.0, "errors": 0, "score_difference": 1e-5, "rss_mb": 200.0}
#: Connections to a model server alone, ours or a peer's, and to the gateway, where each slot sees a part of them.
CONNECTIONS, SHARED = 64, 128
#: Seconds for which a server, ours or a peer's, is asked before it is measured: what is looked up first takes longer.
WARM = 2.0


def closed(
    bodies: Path, port: int, seconds: float, path: str = "/predict", callers: int = CONNECTIONS, on: Sequence[str] = ()
) -> dict[str, Any]:
    """Each of the connections sends its next request once it has its answer. `on` names the callers' cores."""
    if shutil.which("wrk") is None:
        return load(bodies, port, seconds, path=path, callers=callers, on=on)
    command = [
        *on,
        "wrk",
        "-t1",
        f"-c{callers}",
        f"-d{seconds:.0f}s",
        "-s",
        str(ROOT / "benchmarks" / "wrk.lua"),
        f"http://127.0.0.1:{port}",
        "--",
        str(bodies),
        path,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def together(bodies: Path, ports: Sequence[int], seconds: float, path: str) -> dict[str, Any]:
    """`closed` on all servers at once, among which the connections are shared."""
    asked = partial(closed, bodies, seconds=seconds, path=path, callers=CONNECTIONS // len(ports))
    with ThreadPoolExecutor(len(ports)) as callers:
        each = list(callers.map(asked, ports))
    return {
        **{k: sum(one[k] for one in each) for k in ("requests", "errors", "rps")},
        **{k: max(one[k] for one in each) for k in ("p99_ms", "max_ms")},
    }


def load(
    bodies: Path,
    port: int,
    seconds: float,
    rate: float = 0,
    path: str = "/predict",
    callers: int = CONNECTIONS,
    on: Sequence[str] = (),
) -> dict[str, Any]:
    command = [
        *on,
        sys.executable,
        "-m",
        "benchmarks.serving.load",
        "--port",
        str(port),
        "--bodies",
        str(bodies),
        "--path",
        path,
        "--seconds",
        str(seconds),
        "--rate",
        str(rate),
        "--connections",
        str(callers),
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def measured(processes: Mapping[str, Sequence[psutil.Process]], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The run's figures, and the CPU time, in microseconds a request, of each group of processes and of the callers."""

    def spent() -> dict[str, float]:
        times = {name: sum(sum(p.cpu_times()[:2]) for p in group) for name, group in processes.items()}
        callers = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {**times, "callers": callers.ru_utime + callers.ru_stime}

    before = spent()
    figures = run()
    used = {name: round((after - before[name]) / figures["requests"] * 1e6, 1) for name, after in spent().items()}
    return {**figures, "cpu_us": used}


def difference(url: str, prepared: Prepared) -> float:
    """The greatest difference between a served score and torch's: every row single and in batches, eight callers at once."""
    rows, scores = prepared.rows, prepared.scores

    def worst(http: httpx.Client, start: int, size: int) -> float:
        said = http.post("/predict", json={"rows": rows[start : start + size]}).json()["scores"]
        return float(np.abs(np.array(said) - scores[start : start + size]).max())

    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http, ThreadPoolExecutor(8) as callers:
        asked = [(start, size) for size in (1, 500) for start in range(0, len(rows), size)]
        return max(callers.map(lambda each: worst(http, *each), asked))


def beside(home: Path, prepared: Prepared, ours: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What each peer does alone, how many times that is ours, and by how much its first score is off; or why it is missing."""
    found: dict[str, Any] = {}
    numbers = np.nan_to_num(prepared.numbers[:1000])
    right = Session(str(home / "artifact" / "model.onnx")).score(prepared.ids[:1], numbers[:1])[0]
    for peer in peers.PEERS:
        folder = home / peer.name
        folder.mkdir()
        bodies = peers.bodies(peer, prepared.ids[:1000], numbers)
        (folder / "bodies.jsonl").write_bytes(b"\n".join(bodies))
        try:
            with peers.serving(peer, home / "artifact" / "model.onnx", folder, bodies[0]) as (group, first):
                asked = partial(closed, folder / "bodies.jsonl", peers.PORT, path=peer.path)
                asked(seconds=WARM)
                figures = measured({"server": group}, partial(asked, seconds=seconds))
        except peers.Missing as fault:
            found[peer.name] = {"missing": str(fault)}
            continue
        of = {"times": ours[peer.beside]["rps"], "raw_times": ours["direct"]["rps"]}
        found[peer.name] = {
            **figures,
            "difference": abs(first - float(right)),
            "beside": peer.beside,
            **{name: round(rps / figures["rps"], 2) for name, rps in of.items()},
            "at_least": peer.at_least,
        }
    return found


def canary_share(settings: Settings) -> float:
    counts = {}
    for slot in ("stable", "canary"):
        lines = httpx.get(f"{settings.slot_urls(slot)[0]}/metrics", trust_env=False).text.splitlines()
        counts[slot] = sum(
            float(x.split()[-1]) for x in lines if x.startswith("perennial_requests_total") and "/predict" in x
        )
    return counts["canary"] / sum(counts.values())


def bench(home: Path, seconds: float) -> dict[str, Any]:
    settings, prepared, bodies = replace(SETTINGS, home=home), prepare(home), home / "rows.jsonl"
    gateway, direct, short = settings.gateway_port, settings.stable_port, min(seconds, 15)
    tensors = home / "tensors.jsonl"
    tensors.write_bytes(
        b"\n".join(peers.bodies(peers.PEERS[0], prepared.ids[:1000], np.nan_to_num(prepared.numbers[:1000])))
    )
    shared = {"callers": SHARED, "on": pinned(settings, "callers")}
    through, at_rate = partial(closed, bodies, gateway, **shared), partial(load, bodies, gateway, **shared)
    with stack(settings, hollow) as processes:
        figures: dict[str, Any] = {"ceiling": measured(processes, lambda: through(short))}
    with stack(settings, server) as processes:
        through(WARM)
        figures["closed"] = measured(processes, lambda: through(seconds))
        figures["split"] = round(canary_share(settings), 4)
        figures["open"] = measured(processes, lambda: at_rate(seconds, BOUNDS["rps"]))
        figures["direct"] = measured(processes, lambda: closed(bodies, direct, short))
        figures["tensors"] = measured(processes, lambda: closed(tensors, direct, short, peers.V2))
        figures["score_difference"] = difference(settings.slot_urls("stable")[0], prepared)
        figures["rss_mb"] = {n: round(p.memory_info().rss / 2**20) for n, [p] in processes.items()}
    cores = replace(settings, servers=os.cpu_count() or 1)
    with servers(cores, ["stable"], server) as processes:
        ports = list(cores.slot_servers("stable").values())
        figures["every_core"] = measured(processes, lambda: together(tensors, ports, short, peers.V2))
    figures["peers"] = beside(home, prepared, figures, min(seconds, 10))
    return figures


def holds(figures: dict[str, Any]) -> dict[str, bool]:
    return {
        "rps": figures["closed"]["rps"] >= BOUNDS["rps"],
        "p99_ms": max(figures[k]["p99_ms"] for k in ("closed", "open")) < BOUNDS["p99_ms"],
        "errors": all(
            figures[k]["errors"] == BOUNDS["errors"] for k in ("closed", "open", "direct", "tensors", "every_core")
        ),
        "score_difference": figures["score_difference"] <= BOUNDS["score_difference"],
        "rss_mb": max(figures["rss_mb"][slot] for slot in ("stable", "canary")) < BOUNDS["rss_mb"],
        **{name: peer.get("times", 0) >= peer.get("at_least", 1) for name, peer in figures["peers"].items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("bench", "soak"), default="bench")
    parser.add_argument("--seconds", type=float, help="of each measurement (60), or of the soak (3600)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "soak":
            from benchmarks.serving import soak

            figures, bounds, held = soak.run(Path(folder), options.seconds or 3600)
        else:
            figures, bounds = bench(Path(folder), options.seconds or 60), BOUNDS
            held = holds(figures)
    for name in ("ceiling", "closed", "open", "direct", "tensors", "every_core", *figures.get("peers", {})):
        if found := figures.get(name, figures.get("peers", {}).get(name)):
            print(f"{name:>10}: {found}", file=sys.stderr)
    print(json.dumps({"figures": figures, "bounds": bounds, "holds": held}))
    return 0 if all(held.values()) else 1
