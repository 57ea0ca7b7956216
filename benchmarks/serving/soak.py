"""A model server for an hour at 2,000 requests a second, its version swapped twenty times: does its memory stay?

Memory is what the server has made itself, without pages of files, which count or not as other processes have the same files open;
the median of each tenth of the time. The first two tenths, with four swaps, warm it up and do not count: caches fill, two versions
have stood side by side, and values are counted for three.
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
from benchmarks.serving.stack import ROOT, SETTINGS, program, ready
from tests.serving import FakeRegistry

RATE, SWAPS, WARM = 2000, 20, 2
BOUNDS = {"growth": 0.05, "errors": 0, "swaps": SWAPS}


def run(home: Path, seconds: float) -> tuple[dict[str, Any], dict[str, Any], dict[str, bool]]:
    """The figures, the bounds and which of them hold."""
    prepare(home)
    manifest = home / "artifact" / "manifest.json"
    registry = FakeRegistry()
    registry.versions = {str(n): _version(manifest, n) for n in range(SWAPS + 1)}
    registry.aliases["champion"] = "0"
    url = SETTINGS.slot_urls("stable")[0]
    with program(
        sys.executable,
        "-m",
        "include.server",
        "--slot",
        "stable",
        "--model",
        "flights",
        "--registry",
        registry.url,
        "--port",
        url.rsplit(":", 1)[1],
        "--log",
        str(home / "log"),
        "--drain",
        "0",
        "--store",
        str(home / "online"),
    ) as server:
        ready(f"{url}/v2/health/ready")
        caller = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.serving.load",
                "--port",
                url.rsplit(":", 1)[1],
                "--bodies",
                home / "rows.jsonl",
                "--seconds",
                str(seconds),
                "--rate",
                str(RATE),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        memory = _watched(server, registry, caller, seconds)
        load = json.loads(caller.communicate()[0])
        served = httpx.get(f"{url}/status", trust_env=False).json()["version"]
    registry.close()
    tenths = [statistics.median(memory[i * len(memory) // 10 : (i + 1) * len(memory) // 10]) for i in range(10)]
    growth = max(tenths[WARM:]) / tenths[WARM] - 1
    figures = {
        "load": load,
        "memory_mb": [round(m / 2**20, 1) for m in tenths],
        "growth": round(growth, 4),
        "swaps": int(served),
    }
    held = {"growth": growth <= BOUNDS["growth"], "errors": load["errors"] == 0, "swaps": int(served) == SWAPS}
    return figures, BOUNDS, held


def _version(manifest: Path, number: int) -> dict[str, str]:
    """Another version of the artifact: the same files under a manifest of its own."""
    path = manifest.with_name(f"manifest-{number}.json")
    path.write_text(json.dumps({**json.loads(manifest.read_text()), "run": f"soak-{number}"}))
    return {"artifact_uri": str(path), "artifact_digest": hashlib.sha256(path.read_bytes()).hexdigest()}


def _watched(server: Any, registry: FakeRegistry, caller: subprocess.Popen[str], seconds: float) -> list[int]:
    """Swap at even distances; the server's memory ten times between two swaps."""
    begun, memory = time.monotonic(), []
    while caller.poll() is None:
        passed = (time.monotonic() - begun) / seconds
        registry.aliases["champion"] = str(min(SWAPS, int(passed * (SWAPS + 1))))
        memory.append(_anonymous(server.pid))
        time.sleep(seconds / (SWAPS + 1) / 10)
    return memory


def _anonymous(process: int) -> int:
    """Bytes, resident."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
