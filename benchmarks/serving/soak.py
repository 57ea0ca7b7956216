"""A model server for an hour at 2,000 requests a second, its version swapped twenty times: does its memory grow?

Memory is what the server itself has allocated, without pages of files, which count or not as other processes have the same files
open; the figure is the median of each tenth of the time. The first two tenths, with four swaps, warm it up and do not count: caches
fill, two versions have been in memory at once, and values are counted for three.
"""

import hashlib
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.data import prepare
from benchmarks.serving.stack import SETTINGS, await_ready, running_program
from include.settings import ROOT
from tests.serving import FakeMLflow

RATE, SWAPS, WARM_UP_TENTHS = 2000, 20, 2
BOUNDS = {"growth": 0.05, "errors": 0, "swaps": SWAPS}


def run(home: Path, seconds: float) -> tuple[dict[str, Any], dict[str, Any], dict[str, bool]]:
    """Return the figures, the bounds, and which of them hold."""
    prepare(home)
    registry = FakeMLflow()
    manifest = home / "artifact" / "manifest.json"
    registry.versions = {str(n): _version_tags(manifest, n) for n in range(SWAPS + 1)}
    registry.aliases["champion"] = "0"
    url = SETTINGS.slot_urls("stable")[0]
    port = url.rsplit(":", 1)[1]
    program = [sys.executable, "-m", "include.server", "--slot", "stable", "--model", "flights", "--drain", "0"]
    options = ["--registry", registry.url, "--port", port, "--log", str(home / "log"), "--store", str(home / "online")]
    with running_program(*program, *options) as server:
        await_ready(f"{url}/v2/health/ready")
        load = [sys.executable, "-m", "benchmarks.serving.load", "--port", port, "--bodies", str(home / "rows.jsonl")]
        rate = ["--seconds", str(seconds), "--rate", str(RATE)]
        caller = subprocess.Popen([*load, *rate], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        memory = _swap_and_sample(server.pid, registry, caller, seconds)
        load_figures = json.loads(caller.communicate()[0])
        swaps = int(httpx.get(f"{url}/status", trust_env=False).json()["version"])
    registry.close()
    tenths = [statistics.median(memory[i * len(memory) // 10 : (i + 1) * len(memory) // 10]) for i in range(10)]
    growth = max(tenths[WARM_UP_TENTHS:]) / tenths[WARM_UP_TENTHS] - 1
    memory_mb = [round(m / 2**20, 1) for m in tenths]
    figures = {"load": load_figures, "memory_mb": memory_mb, "growth": round(growth, 4), "swaps": swaps}
    holds = {"growth": growth <= BOUNDS["growth"], "errors": load_figures["errors"] == 0, "swaps": swaps == SWAPS}
    return figures, BOUNDS, holds


def _version_tags(manifest: Path, number: int) -> dict[str, str]:
    """Write another version of the artifact, the same files under a manifest of its own, and return its registry tags."""
    path = manifest.with_name(f"manifest-{number}.json")
    path.write_text(json.dumps({**json.loads(manifest.read_text()), "run": f"soak-{number}"}))
    return {"artifact_uri": str(path), "artifact_digest": hashlib.sha256(path.read_bytes()).hexdigest()}


def _swap_and_sample(server: int, registry: FakeMLflow, caller: subprocess.Popen[str], seconds: float) -> list[int]:
    """Swap versions at even intervals while the caller runs, and return the server's memory ten times between two swaps."""
    started_at, memory = time.monotonic(), []
    while caller.poll() is None:
        elapsed_share = (time.monotonic() - started_at) / seconds
        registry.aliases["champion"] = str(min(SWAPS, int(elapsed_share * (SWAPS + 1))))
        memory.append(_anonymous_memory(server))
        time.sleep(seconds / (SWAPS + 1) / 10)
    return memory


def _anonymous_memory(pid: int) -> int:
    """Return the resident bytes of the process that belong to no file."""
    line = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert line is not None
    return int(line[1]) * 1024
