"""Single-row predictions of flights: two model servers behind the gateway at 90/10, all and the callers on one machine.

`make bench-serve`: through the gateway, direct, and beside other model servers with the same ONNX model. The model is the
flights spec's DCN with its first, random weights: serving costs the same as trained, and its scores can be compared with
torch's. `python -m benchmarks serve soak` lets it run for an hour. The last line is one JSON object with the figures, the
bounds and `holds`. `ceiling` is what the same gateway and callers reach, in the same run, before servers that do nothing;
`cpu_us` is each process's CPU time for a request. Peers are sent encoded tensors, and what they are compared with is the
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
from benchmarks.serving.data import BenchRows, prepare
from benchmarks.serving.peers.scoring import Session
from benchmarks.serving.stack import SETTINGS, constant_server, model_server, running_servers, running_stack
from include.local.cpu_affinity import pinned
from include.settings import ROOT, Settings

BOUNDS = {"rps": 10_000, "p99_ms": 50.0, "errors": 0, "score_difference": 1e-5, "rss_mb": 200.0}
#: Connections to a model server alone, ours or a peer's, and to the gateway, where each slot gets a part of them.
CONNECTIONS, GATEWAY_CONNECTIONS = 64, 128
#: Seconds of requests before a server, ours or a peer's, is measured: the first look-ups take longer.
WARM_UP = 2.0

Figures = dict[str, Any]


def closed_loop(
    bodies: Path,
    port: int,
    seconds: float,
    path: str = "/predict",
    connections: int = CONNECTIONS,
    prefix: Sequence[str] = (),
) -> Figures:
    """Measure a closed loop: each connection sends its next request once it has its answer.

    `prefix` stands before the callers' command, to choose their cores.
    """
    if shutil.which("wrk") is None:
        return fixed_rate(bodies, port, seconds, rate=0, path=path, connections=connections, prefix=prefix)
    script = str(Path(__file__).with_name("wrk.lua"))
    wrk = [*prefix, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", script, f"http://127.0.0.1:{port}"]
    output = subprocess.run([*wrk, "--", str(bodies), path], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def fixed_rate(
    bodies: Path,
    port: int,
    seconds: float,
    rate: float,
    path: str = "/predict",
    connections: int = CONNECTIONS,
    prefix: Sequence[str] = (),
) -> Figures:
    """Measure `rate` requests a second by load.py, of which 0 is a closed loop; see `closed_loop`."""
    program = [*prefix, sys.executable, "-m", "benchmarks.serving.load", "--port", str(port), "--bodies", str(bodies)]
    options = ["--path", path, "--seconds", str(seconds), "--rate", str(rate), "--connections", str(connections)]
    output = subprocess.run([*program, *options], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output))


def closed_loop_on_all(bodies: Path, ports: Sequence[int], seconds: float, path: str) -> Figures:
    """Measure a closed loop on all servers at once, among which the connections are shared; the latencies are the worst."""
    connections = CONNECTIONS // len(ports)
    measure = partial(closed_loop, bodies, seconds=seconds, path=path, connections=connections)
    with ThreadPoolExecutor(len(ports)) as callers:
        each = list(callers.map(measure, ports))
    sums = {key: sum(figures[key] for figures in each) for key in ("requests", "errors", "rps")}
    return sums | {key: max(figures[key] for figures in each) for key in ("p99_ms", "max_ms")}


def with_cpu_time(processes: Mapping[str, Sequence[psutil.Process]], run: Callable[[], Figures]) -> Figures:
    """Return the run's figures and, as `cpu_us`, the CPU microseconds a request of each group of processes and of the callers."""

    def cpu_seconds() -> dict[str, float]:
        seconds = {name: sum(sum(p.cpu_times()[:2]) for p in group) for name, group in processes.items()}
        callers = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {**seconds, "callers": callers.ru_utime + callers.ru_stime}

    before = cpu_seconds()
    figures = run()
    used = {name: seconds - before[name] for name, seconds in cpu_seconds().items()}
    per_request = {name: round(seconds / figures["requests"] * 1e6, 1) for name, seconds in used.items()}
    return {**figures, "cpu_us": per_request}


def score_difference(url: str, bench: BenchRows) -> float:
    """Return the largest difference between a served score and torch's: all rows single and in batches, from eight callers."""
    rows, scores = bench.rows, bench.scores

    def largest(http: httpx.Client, start: int, size: int) -> float:
        served = http.post("/predict", json={"rows": rows[start : start + size]}).json()["scores"]
        return float(np.abs(np.array(served) - scores[start : start + size]).max())

    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http, ThreadPoolExecutor(8) as callers:
        batches = [(start, size) for size in (1, 500) for start in range(0, len(rows), size)]
        return max(callers.map(lambda batch: largest(http, *batch), batches))


def compare_peers(home: Path, bench: BenchRows, ours: Mapping[str, Any], seconds: float) -> Figures:
    """Return for each peer its figures, how many times them ours are, and its first score's difference; or why it is missing."""
    numbers = np.nan_to_num(bench.numbers[:1000])
    onnx = home / "artifact" / "model.onnx"
    right_score = float(Session(str(onnx)).score(bench.ids[:1], numbers[:1])[0])
    compared: Figures = {}
    for peer in peers.PEERS:
        folder = home / peer.name
        folder.mkdir()
        bodies = peers.bodies(peer, bench.ids[:1000], numbers)
        (folder / "bodies.jsonl").write_bytes(b"\n".join(bodies))
        try:
            with peers.serving(peer, onnx, folder, bodies[0]) as (processes, first_score):
                measure = partial(closed_loop, folder / "bodies.jsonl", peers.PORT, path=peer.path)
                measure(seconds=WARM_UP)
                figures = with_cpu_time({"server": processes}, partial(measure, seconds=seconds))
        except peers.Missing as error:
            compared[peer.name] = {"missing": str(error)}
            continue
        compared[peer.name] = {
            **figures,
            "difference": abs(first_score - right_score),
            "beside": peer.beside,
            "times": round(ours[peer.beside]["rps"] / figures["rps"], 2),
            "raw_times": round(ours["direct"]["rps"] / figures["rps"], 2),
            "at_least": peer.at_least,
        }
    return compared


def canary_share(settings: Settings) -> float:
    """Return the canary's share of all predictions, by both slots' own counts."""
    counts = {}
    for slot in ("stable", "canary"):
        lines = httpx.get(f"{settings.slot_urls(slot)[0]}/metrics", trust_env=False).text.splitlines()
        predictions = [x for x in lines if x.startswith("perennial_requests_total") and "/predict" in x]
        counts[slot] = sum(float(line.split()[-1]) for line in predictions)
    return counts["canary"] / sum(counts.values())


def run_bench(home: Path, seconds: float) -> Figures:
    """Run all measurements and return their figures."""
    settings, bench, rows = replace(SETTINGS, home=home), prepare(home), home / "rows.jsonl"
    gateway, direct, short = settings.gateway_port, settings.stable_port, min(seconds, 15)
    tensors = home / "tensors.jsonl"
    tensor_bodies = peers.bodies(peers.PEERS[0], bench.ids[:1000], np.nan_to_num(bench.numbers[:1000]))
    tensors.write_bytes(b"\n".join(tensor_bodies))
    callers: dict[str, Any] = {"connections": GATEWAY_CONNECTIONS, "prefix": pinned(settings, "callers")}
    through_gateway, at_rate = (partial(f, rows, gateway, **callers) for f in (closed_loop, fixed_rate))
    with running_stack(settings, constant_server) as processes:
        figures: Figures = {"ceiling": with_cpu_time(processes, lambda: through_gateway(seconds=short))}
    with running_stack(settings, model_server) as processes:
        through_gateway(seconds=WARM_UP)
        figures["closed"] = with_cpu_time(processes, lambda: through_gateway(seconds=seconds))
        figures["split"] = round(canary_share(settings), 4)
        figures["open"] = with_cpu_time(processes, lambda: at_rate(seconds=seconds, rate=BOUNDS["rps"]))
        figures["direct"] = with_cpu_time(processes, lambda: closed_loop(rows, direct, short))
        figures["tensors"] = with_cpu_time(processes, lambda: closed_loop(tensors, direct, short, peers.V2))
        figures["score_difference"] = score_difference(settings.slot_urls("stable")[0], bench)
        figures["rss_mb"] = {n: round(p.memory_info().rss / 2**20) for n, [p] in processes.items()}
    every_core = replace(settings, servers=os.cpu_count() or 1)
    with running_servers(every_core, ["stable"], model_server) as processes:
        ports = list(every_core.slot_servers("stable").values())
        measure = partial(closed_loop_on_all, tensors, ports, short, peers.V2)
        figures["every_core"] = with_cpu_time(processes, measure)
    figures["peers"] = compare_peers(home, bench, figures, min(seconds, 10))
    return figures


def check_bounds(figures: Figures) -> dict[str, bool]:
    """Return by bound, and by peer, whether it holds."""
    loops = ("closed", "open", "direct", "tensors", "every_core")
    return {
        "rps": figures["closed"]["rps"] >= BOUNDS["rps"],
        "p99_ms": max(figures[k]["p99_ms"] for k in ("closed", "open")) < BOUNDS["p99_ms"],
        "errors": all(figures[k]["errors"] == BOUNDS["errors"] for k in loops),
        "score_difference": figures["score_difference"] <= BOUNDS["score_difference"],
        "rss_mb": max(figures["rss_mb"][slot] for slot in ("stable", "canary")) < BOUNDS["rss_mb"],
        **{name: peer.get("times", 0) >= peer.get("at_least", 1) for name, peer in figures["peers"].items()},
    }


def main() -> int:
    """Run the bench or the soak, print its figures, and return 0 if all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("bench", "soak"), default="bench")
    parser.add_argument("--seconds", type=float, help="of each measurement (60), or of the soak (3600)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "soak":
            from benchmarks.serving import soak

            figures, bounds, holds = soak.run(Path(folder), options.seconds or 3600)
        else:
            figures, bounds = run_bench(Path(folder), options.seconds or 60), BOUNDS
            holds = check_bounds(figures)
    all_figures = figures | figures.get("peers", {})
    for name in ("ceiling", "closed", "open", "direct", "tensors", "every_core", *figures.get("peers", {})):
        if name in all_figures:
            print(f"{name:>10}: {all_figures[name]}", file=sys.stderr)
    print(json.dumps({"figures": figures, "bounds": bounds, "holds": holds}))
    return 0 if all(holds.values()) else 1
