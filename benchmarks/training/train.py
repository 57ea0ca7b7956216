"""Measure the training speed on the CPU of our DCN-v2 beside FuxiCTR's and DeepCTR-Torch's, on the same rows and machine.

`make bench-train`, or `python -m benchmarks train --section flights --quick` (one epoch, fewer rows). All train at batch
4096 on two threads: embedding 16, three full-rank cross layers, MLP 256-128. FuxiCTR embeds numbers too, as its DCN-v2 does;
DeepCTR-Torch takes them as they are, and so do we. The peers get an environment of their own under Perennial's home. With
`--keep FOLDER` a bench that was stopped goes on where it was. The last line is one JSON object with the figures, the
bounds and `holds`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from benchmarks.training import data as train_data
from include import settings
from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain import metrics
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.stages.training import training

ROOT = Path(__file__).resolve().parents[2]
#: The packages of the peers' environment.
PEERS = ("torch==2.13.0", "fuxictr==2.3.10", "numpy==2.4.6", "pandas==3.1.1", "catboost==1.2.10")
#: A peer that is installed without its requirements, for these ask for TensorFlow, which it does not import.
PEERS_WITHOUT_REQUIREMENTS = ("deepctr-torch==0.3.0",)
#: The shape of everybody's network; without a linear term of the categories, which the peers' DCN-v2 does not have.
SHAPE = {"embedding": 16, "cross_layers": 3, "cross_rank": 0, "hidden": (256, 128), "first_order": 0.0}
THREADS, TABLE = 2, 5_000_000
#: A script that runs a program and prints its peak memory in KiB. A program started by the bench itself would inherit the
#: peak of the bench, which is large because it makes the data.
PEAK_MEMORY_SCRIPT = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
BOUNDS = {
    "flights_times_fuxictr": 4.0,
    "flights_share_of_fp32_peak": 0.75,
    "clicks_times_fuxictr": 6.0,
    "memory_tables": 5.0,
}


def peer_environment() -> Path:
    """Return the Python of the peers' environment, which is installed once."""
    folder = settings.from_env().home / "peers"
    python, installed = folder / "bin" / "python", folder / "installed"
    packages = "\n".join([*PEERS, *PEERS_WITHOUT_REQUIREMENTS])
    if not installed.exists() or installed.read_text() != packages:
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        for requirements, options in ((PEERS, ()), (PEERS_WITHOUT_REQUIREMENTS, ("--no-deps",))):
            subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), *requirements, *options], check=True)
        installed.write_text(packages)
    return python


def measure_ours(spec: ModelSpec, dataset: Reference, out: Path, epochs: int, precision: str) -> dict[str, Any]:
    """Run the whole trainer program, and return the samples/s of its steps, its test AUC, peak memory and GFLOP/s."""
    settings = replace(spec.training, batch_size=4096, threads=THREADS, epochs=epochs, precision=precision)
    bench_spec = spec.model_copy(update={"model": replace(spec.model, **SHAPE), "training": settings})
    store.write(out / "job.json", training.job(bench_spec, dataset, "dcn", out))
    command = [sys.executable, "-c", PEAK_MEMORY_SCRIPT, sys.executable, "-m", "include.trainer", str(out / "job.json")]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=_variables()).stdout
    manifest = store.load(out / "manifest.json", ModelManifest)
    speed = manifest.samples_per_second
    flops = _flops(out / "model.safetensors")
    shutil.rmtree(out)
    return {
        "samples_per_second": speed,
        "auc": manifest.metrics.test.auc,
        "peak_gb": int(output.splitlines()[-1]) / 2**20,
        "gflops": speed * flops / 1e9,
    }


def _flops(weights: Path) -> int:
    """Return the operations of a sample's matrix products: two a weight in each of the product and its two gradients."""
    with safe_open(weights, "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return 6 * sum(int(np.prod(s)) for n, s in shapes.items() if n.endswith(".weight") and not n.startswith("table."))


def measure_peer(name: str, dataset: Reference, work: Path, epochs: int) -> dict[str, Any]:
    """Train a peer in its environment, and return its samples/s and its test AUC."""
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(dataset.uri.removeprefix("file://")).parent
    command = [str(peer_environment()), "benchmarks/training/peers.py", name, str(folder), str(work), str(epochs)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=_variables()).stdout
    figures = json.loads(output.splitlines()[-1])
    auc = metrics.auc(np.load(folder / "test.labels.npy"), np.load(work / f"{name}.npy"))
    return {"samples_per_second": figures["samples_per_second"], "auc": auc}


def load_or_measure(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures in the file; measure and write them first if there is no file."""
    if not path.exists():
        store.write(path, measure())
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def _variables() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT)}


def matrix_peaks(size: int = 2048, seconds: float = 2.0) -> dict[str, float]:
    """Return the GFLOP/s of square matrix products in fp32 and bf16 on `THREADS` threads, the best of those in some seconds."""
    torch.set_num_threads(THREADS)
    peaks = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            started_at = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - started_at)
        peaks[f"{name}_peak_gflops"] = 2 * size**3 / best / 1e9
    return peaks


def compare(data: dict[str, Any], spec: ModelSpec, folder: Path, epochs: int, peers: list[str]) -> dict[str, Any]:
    """Measure our trainer in its own precision and in fp32, and the peers, one after the other, and return the figures of all."""
    dataset, figures = Reference(data["uri"], data["digest"]), {}
    for precision in ("auto", "fp32"):
        measure = partial(measure_ours, spec, dataset, folder / precision, epochs, precision)
        figures[f"ours_{precision}"] = load_or_measure(folder / f"ours_{precision}.json", measure)
    for name in peers:
        figures[name] = load_or_measure(
            folder / f"{name}.json", partial(measure_peer, name, dataset, folder / "peers", epochs)
        )
    for name, values in figures.items():
        print(f"{spec.name:>8} {name:<10}", {k: round(v, 4) for k, v in values.items()}, file=sys.stderr, flush=True)
    figures |= {
        f"times_{name}": figures["ours_auto"]["samples_per_second"] / figures[name]["samples_per_second"]
        for name in peers
    }
    if "fuxictr" in peers:
        figures["auc_gain"] = figures["ours_auto"]["auc"] - figures["fuxictr"]["auc"]
    return figures


def flights_section(folder: Path, quick: bool, peers: list[str]) -> dict[str, Any]:
    """Return the figures on flights, with our share of the machine's peak in fp32."""
    spec = find("flights")
    data = load_or_measure(folder / "data.json", lambda: asdict(train_data.flights_year(spec, folder / "data")))
    # The peaks are measured next to our trainings, since a machine's speed drifts.
    peaks = load_or_measure(folder / "peak.json", matrix_peaks)
    figures = peaks | compare(data, spec, folder, 1 if quick else 3, peers)
    return {**figures, "share_of_fp32_peak": figures["ours_fp32"]["gflops"] / figures["fp32_peak_gflops"]}


def clicks_section(folder: Path, quick: bool, peers: list[str]) -> dict[str, Any]:
    """Return the figures on the click stream, with the peak memory in sizes of the embedding table."""
    spec, rows = find("clicks"), 100_000 if quick else 600_000

    def write_dataset() -> dict[str, Any]:
        dataset, best = train_data.clicks_stream(spec, folder / "data", table=TABLE, rows=rows)
        return {**asdict(dataset), "best_auc": best}

    data = load_or_measure(folder / "data.json", write_dataset)
    figures = compare(data, spec, folder, 1, peers)
    table = TABLE * SHAPE["embedding"] * 4 / 2**30  # type: ignore[operator]
    return {**figures, "best_auc": data["best_auc"], "memory_tables": figures["ours_fp32"]["peak_gb"] / table}


def main() -> int:
    """Measure the chosen sections, print the figures, and return 0 if all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    sections = {"flights": flights_section, "clicks": clicks_section}
    parser.add_argument("--section", choices=sections, action="append")
    parser.add_argument("--quick", action="store_true", help="one epoch, fewer rows")
    parser.add_argument("--peer", choices=("fuxictr", "deepctr", "none"), action="append")
    parser.add_argument("--keep", type=Path, help="a folder for what was measured; a temporary one when left out")
    options = parser.parse_args()
    peers = [p for p in options.peer or ["fuxictr", "deepctr"] if p != "none"]
    figures: dict[str, Any] = {"bf16_instructions": bool(torch.cpu.get_capabilities().get("avx512_bf16"))}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.section or sections:
            figures[name] = sections[name]((options.keep or Path(folder)) / name, options.quick, peers)
    flat = {f"{s}_{k}": v for s, part in figures.items() if isinstance(part, dict) for k, v in part.items()}
    flat["memory_tables"] = flat.pop("clicks_memory_tables", 0.0)
    holds = {
        name: flat[name] <= bound if name == "memory_tables" else flat[name] >= bound
        for name, bound in BOUNDS.items()
        if name in flat
    }
    holds |= {name: value >= 0 for name, value in flat.items() if name.endswith("auc_gain")}
    print(
        json.dumps(
            {"bench": "train", "figures": figures, "bounds": BOUNDS, "checks": holds, "holds": all(holds.values())}
        )
    )
    return 0 if all(holds.values()) else 1
