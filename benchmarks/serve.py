"""Single-row predictions of flights: two model servers behind the gateway at 90/10, all and the callers on one machine.

`make bench-serve`: through the gateway, direct, and beside other model servers with the same ONNX model. The model is the
flights spec's DCN with its first, random weights: serving costs the same as trained, and its scores can be compared with
torch's. `python -m benchmarks.serve soak` lets it run for an hour. The last line is one JSON object with the figures, the
bounds and `holds`. A closed loop is driven by wrk where it is installed (on Debian: apt-get install wrk), else by load.py.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import torch

from benchmarks import peers
from benchmarks.peers.scoring import Session
from include import spec, specs
from include.adapters.delta import DeltaTables
from include.adapters.duckdb import DuckDB
from include.adapters.traefik import for_settings, lay_out
from include.domain.encoding import Encoding, fit
from include.domain.windows import Window, label, parse
from include.local import flights
from include.online.store import open_store
from include.ports import Routes
from include.settings import ROOT, Settings
from include.stages import aggregation
from include.trainer.artifact import signature
from include.trainer.export import Probability, graph
from include.trainer.job import Model
from include.trainer.model import Net, Table, build, width

SETTINGS = Settings(gateway_port=19088, gateway_admin_port=19089, stable_port=19001, canary_port=19002)
BOUNDS = {"rps": 10_000, "p99_ms": 50.0, "errors": 0, "score_difference": 1e-5, "rss_mb": 200.0}
ROWS = 5000
CONNECTIONS = 64


@dataclass(frozen=True)
class Prepared:
    """Rows as callers send them, encoded, and scored by torch."""

    rows: list[dict[str, Any]]
    ids: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray


def prepare(home: Path) -> Prepared:
    """The artifact, the online store and the callers' bodies under `home`, and what they should be answered."""
    found = specs.find("flights")
    columns, aggregates = found.columns, found.features.aggregates.features
    past, asked = _with_aggregates(found, home)
    rows = asked.drop(aggregates).with_columns(pl.col(columns.time).dt.to_string("iso:strict")).to_dicts()
    encoding = fit(
        past.to_dict(as_series=False), time=columns.time, zone=columns.zone, time_parts=found.features.time_parts,
        categorical=columns.categorical, numeric=columns.numeric, min_frequency=found.features.min_frequency,
        looked_up=aggregates,
    )  # fmt: skip
    torch.manual_seed(found.training.seed)
    shape = {k: v for k, v in found.model.model_dump().items() if k in Model.__dataclass_fields__}
    table = Table(encoding.sizes, 0.05 * torch.randn(sum(encoding.sizes), width("dcn", Model(**shape))))
    tower = build("dcn", Model(**shape), encoding, encoding.encode(past.to_dict(as_series=False))[1])
    model = Probability(Net(table, tower)).eval()
    ids, numbers = encoding.encode(asked.to_dict(as_series=False))
    with torch.no_grad():
        scores = model(torch.from_numpy(ids), torch.from_numpy(numbers)).numpy()
    _write_artifact(home / "artifact", encoding, graph(model.model, encoding), rows[:64], found)
    (home / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Prepared(rows, ids, numbers, scores)


def _with_aggregates(found: spec.ModelSpec, home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flights of the winter, and those that callers ask about; what was known of them lies in the online store."""
    rows = flights.recorded(flights.data_folder()).filter(
        pl.col("departure") < pl.datetime(2013, 4, 10, time_zone="UTC")
    )
    windows = list(Window(parse("2013-01-01"), parse("2013-04-10")).split(found.window))
    tables, days = DeltaTables(home / "tables"), rows["departure"].dt.date().cast(pl.String)
    content = {w: rows.filter(days == label(w.start)).to_arrow(compat_level=pl.CompatLevel.oldest()) for w in windows}
    tables.replace("landed", content, "bench")
    aggregation.land_sums(found, windows, tables, DuckDB(), "bench")
    version = tables.version(aggregation.SUMS) or 0
    open_store(str(home / "online"), found.name).land(aggregation.landed(found, windows[80:], tables, version), "")
    known = aggregation.history(found, tables, windows[0], windows[-1])
    whole = aggregation.with_aggregates(found, rows.drop(flights.OUTCOMES), known)
    asked = pl.col("departure") >= pl.datetime(2013, 4, 1, time_zone="UTC")
    return whole.filter(~asked), whole.filter(asked).head(ROWS)


def _write_artifact(folder: Path, encoding: Encoding, onnx: bytes, examples: list[Any], found: spec.ModelSpec) -> None:
    folder.mkdir()
    files = {
        "model.onnx": onnx,
        "encoding.json": json.dumps(encoding.to_dict()).encode(),
        "examples.json": json.dumps(examples).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": 1, "model": "flights", "family": "dcn", "run": "bench",
        "files": {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()},
        "signature": signature(len(encoding.categorical), len(encoding.numeric)),
        "columns": {**found.columns.model_dump(mode="json"),
                    "aggregates": found.features.model_dump(mode="json")["aggregates"]},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


@contextmanager
def program(*command: str, **environment: str) -> Iterator[psutil.Process]:
    process = psutil.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@contextmanager
def stack(settings: Settings) -> Iterator[dict[str, psutil.Process]]:
    """Both slots ready and the gateway splitting 90/10."""
    with ExitStack() as running:
        started = {}
        for slot in ("stable", "canary"):
            started[slot] = running.enter_context(program(
                sys.executable, "-m", "include.server", "--slot", slot, "--model", "flights",
                "--artifact", str(settings.home / "artifact" / "manifest.json"), "--drain", "0",
                "--store", str(settings.home / "online"),
                "--port", settings.slot_url(slot).rsplit(":", 1)[1], "--log", str(settings.predictions),
            ))  # fmt: skip
            _await(f"{settings.slot_url(slot)}/v2/health/ready")
        static = lay_out(settings)
        traefik = str(Path(sys.executable).parent / "traefik")
        started["gateway"] = running.enter_context(program(traefik, f"--configFile={static}", GOGC="400"))
        for_settings(settings).apply("flights", Routes(canary=10))
        _await(f"{settings.gateway_url}/v2/health/ready")
        yield started


def _await(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"{url} does not become ready")
        time.sleep(0.1)


def closed(bodies: Path, port: int, seconds: float, path: str = "/predict") -> dict[str, Any]:
    """Each of the connections sends its next request once it has its answer."""
    if shutil.which("wrk") is None:
        return load(bodies, port, seconds, path=path)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(ROOT / "benchmarks" / "wrk.lua"),
               f"http://127.0.0.1:{port}", "--", str(bodies), path]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def load(bodies: Path, port: int, seconds: float, rate: float = 0, path: str = "/predict") -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", "--port", str(port), "--bodies", str(bodies), "--path", path,
               "--seconds", str(seconds), "--rate", str(rate), "--connections", str(CONNECTIONS)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def difference(url: str, prepared: Prepared) -> float:
    """The greatest difference between a served score and torch's: every row single and in batches, eight callers at once."""
    rows, scores = prepared.rows, prepared.scores

    def worst(http: httpx.Client, start: int, size: int) -> float:
        said = http.post("/predict", json={"rows": rows[start : start + size]}).json()["scores"]
        return float(np.abs(np.array(said) - scores[start : start + size]).max())

    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http, ThreadPoolExecutor(8) as callers:
        asked = [(start, size) for size in (1, 500) for start in range(0, len(rows), size)]
        return max(callers.map(lambda each: worst(http, *each), asked))


def beside(home: Path, prepared: Prepared, ours: float, seconds: float) -> dict[str, Any]:
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
            with peers.serving(peer, home / "artifact" / "model.onnx", folder, bodies[0]) as first:
                closed(folder / "bodies.jsonl", peers.PORT, 2, peer.path)
                figures = closed(folder / "bodies.jsonl", peers.PORT, seconds, peer.path)
        except peers.Missing as fault:
            found[peer.name] = {"missing": str(fault)}
            continue
        off = abs(first - float(right))
        found[peer.name] = {
            **figures,
            "difference": off,
            "times": round(ours / figures["rps"], 2),
            "at_least": peer.at_least,
        }
    return found


def canary_share(settings: Settings) -> float:
    counts = {}
    for slot in ("stable", "canary"):
        lines = httpx.get(f"{settings.slot_url(slot)}/metrics", trust_env=False).text.splitlines()
        counts[slot] = sum(
            float(x.split()[-1]) for x in lines if x.startswith("perennial_requests_total") and "/predict" in x
        )
    return counts["canary"] / sum(counts.values())


def bench(home: Path, seconds: float) -> dict[str, Any]:
    settings = Settings(**{**SETTINGS.__dict__, "home": home})
    prepared = prepare(home)
    bodies = home / "rows.jsonl"
    with stack(settings) as processes:
        figures: dict[str, Any] = {"closed": closed(bodies, settings.gateway_port, seconds)}
        figures["split"] = round(canary_share(settings), 4)
        figures["open"] = load(bodies, settings.gateway_port, seconds, BOUNDS["rps"])
        figures["direct"] = closed(bodies, settings.stable_port, min(seconds, 15))
        figures["score_difference"] = difference(settings.slot_url("stable"), prepared)
        figures["rss_mb"] = {n: round(p.memory_info().rss / 2**20) for n, p in processes.items()}
    figures["peers"] = beside(home, prepared, figures["direct"]["rps"], min(seconds, 10))
    return figures


def holds(figures: dict[str, Any]) -> dict[str, bool]:
    return {
        "rps": figures["closed"]["rps"] >= BOUNDS["rps"],
        "p99_ms": max(figures[k]["p99_ms"] for k in ("closed", "open")) < BOUNDS["p99_ms"],
        "errors": all(figures[k]["errors"] == BOUNDS["errors"] for k in ("closed", "open", "direct")),
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
            from benchmarks import soak

            figures, bounds, held = soak.run(Path(folder), options.seconds or 3600)
        else:
            figures, bounds = bench(Path(folder), options.seconds or 60), BOUNDS
            held = holds(figures)
    for name in ("closed", "open", "direct", *figures.get("peers", {})):
        if found := figures.get(name, figures.get("peers", {}).get(name)):
            print(f"{name:>10}: {found}", file=sys.stderr)
    print(json.dumps({"figures": figures, "bounds": bounds, "holds": held}))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
