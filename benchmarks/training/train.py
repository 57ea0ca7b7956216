"""Training speed on the CPU: our DCN-v2 against FuxiCTR's and DeepCTR-Torch's on the same rows of the same machine.

`make bench-train`, or `python -m benchmarks train --section flights --quick` (one epoch, fewer rows). All train at batch
4096 on two threads: embedding 16, three full-rank cross layers, MLP 256-128. FuxiCTR embeds numbers too, as its DCN-v2 does;
DeepCTR-Torch takes them as they are, and so do we. The peers get an environment of their own under Perennial's home. With
`--keep FOLDER` a bench that was stopped goes on where it was. The last line is one JSON object with the figures, the bounds and `holds`.
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
PEERS = ("torch==2.13.0", "fuxictr==2.3.10", "numpy==2.4.6", "pandas==3.1.1", "catboost==1.2.10")
#: Its own requirements ask for TensorFlow, which it does not import.
BARE = ("deepctr-torch==0.3.0",)
#: The same for all; the peers' DCN-v2 has no categories' effects beside its layers.
SHAPE = {"embedding": 16, "cross_layers": 3, "cross_rank": 0, "hidden": (256, 128), "first_order": 0.0}
THREADS, TABLE = 2, 5_000_000
#: Runs a program and prints its peak memory in KiB. A program of the bench's own would inherit the bench's peak, which makes
#: the data; this one is small.
MEASURED = """
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


def environment() -> Path:
    """The peers' Python, made once."""
    folder = settings.from_env().home / "peers"
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join([*PEERS, *BARE])
    if not done.exists() or done.read_text() != wanted:
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        for packages, extra in ((PEERS, ()), (BARE, ("--no-deps",))):
            subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), *packages, *extra], check=True)
        done.write_text(wanted)
    return python


def ours(spec: ModelSpec, dataset: Reference, out: Path, epochs: int, precision: str) -> dict[str, Any]:
    """The trainer program, whole: samples/s of its steps, test AUC, its peak memory, and the matrix work it did."""
    settings = replace(spec.training, batch_size=4096, threads=THREADS, epochs=epochs, precision=precision)
    changed = spec.model_copy(update={"model": replace(spec.model, **SHAPE), "training": settings})
    store.write(out / "job.json", training.job(changed, dataset, "dcn", out))
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "include.trainer", str(out / "job.json")]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=_environ()).stdout
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
    """Of a sample's matrix products forward and backward: two a weight, thrice (the product and its two gradients)."""
    with safe_open(weights, "np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return 6 * sum(int(np.prod(s)) for n, s in shapes.items() if n.endswith(".weight") and not n.startswith("table."))


def peer(name: str, dataset: Reference, work: Path, epochs: int) -> dict[str, Any]:
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(dataset.uri.removeprefix("file://")).parent
    command = [str(environment()), "benchmarks/training/peers.py", name, str(folder), str(work), str(epochs)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=_environ())
    result = json.loads(output.stdout.splitlines()[-1])
    auc = metrics.auc(np.load(folder / "test.labels.npy"), np.load(work / f"{name}.npy"))
    return {"samples_per_second": result["samples_per_second"], "auc": auc}


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, where the file is there; else it is measured and noted."""
    if not path.exists():
        store.write(path, measure())
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _environ() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT)}


def matrix_peaks(size: int = 2048, seconds: float = 2.0) -> dict[str, float]:
    """GFLOP/s of square matrix products on as many threads in fp32 and bf16; the best of a few."""
    torch.set_num_threads(THREADS)
    result = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - began)
        result[f"{name}_peak_gflops"] = 2 * size**3 / best / 1e9
    return result


def compared(data: dict[str, Any], spec: ModelSpec, at: Path, epochs: int, peers: list[str]) -> dict[str, Any]:
    """Ours in its own precision and in fp32, and the peers, one after the other."""
    dataset, result = Reference(data["uri"], data["digest"]), {}
    for precision in ("auto", "fp32"):
        measure = partial(ours, spec, dataset, at / precision, epochs, precision)
        result[f"ours_{precision}"] = kept(at / f"ours_{precision}.json", measure)
    for name in peers:
        result[name] = kept(at / f"{name}.json", partial(peer, name, dataset, at / "peers", epochs))
    for name, values in result.items():
        print(f"{spec.name:>8} {name:<10}", {k: round(v, 4) for k, v in values.items()}, file=sys.stderr, flush=True)
    result |= {
        f"times_{name}": result["ours_auto"]["samples_per_second"] / result[name]["samples_per_second"]
        for name in peers
    }
    if "fuxictr" in peers:
        result["auc_gain"] = result["ours_auto"]["auc"] - result["fuxictr"]["auc"]
    return result


def flights_section(at: Path, quick: bool, peers: list[str]) -> dict[str, Any]:
    spec = find("flights")
    data = kept(at / "data.json", lambda: asdict(train_data.flights_year(spec, at / "data")))
    peaks = kept(at / "peak.json", matrix_peaks)  # next to our own trainings, for a machine's speed drifts
    result = peaks | compared(data, spec, at, 1 if quick else 3, peers)
    return {**result, "share_of_fp32_peak": result["ours_fp32"]["gflops"] / result["fp32_peak_gflops"]}


def clicks_section(at: Path, quick: bool, peers: list[str]) -> dict[str, Any]:
    spec, rows = find("clicks"), 100_000 if quick else 600_000

    def made() -> dict[str, Any]:
        dataset, best = train_data.clicks_stream(spec, at / "data", table=TABLE, rows=rows)
        return {**asdict(dataset), "best_auc": best}

    data = kept(at / "data.json", made)
    result = compared(data, spec, at, 1, peers)
    table = TABLE * SHAPE["embedding"] * 4 / 2**30  # type: ignore[operator]
    return {**result, "best_auc": data["best_auc"], "memory_tables": result["ours_fp32"]["peak_gb"] / table}


def main() -> int:
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
    flat = {f"{s}_{k}": v for s, result in figures.items() if isinstance(result, dict) for k, v in result.items()}
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
