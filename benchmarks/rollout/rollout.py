"""Play rollouts on the real stack under load, and kill everything that drives one at each step: `make bench-rollout`.

Two equal models and one trained on wrong outcomes are rolled out through Airflow while recorded flights are sent through the
gateway. It prints the table of the kills in Markdown; the last line is one JSON object: the figures of each scene, the bounds,
and whether they hold.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.rollout.live import Live
from benchmarks.rollout.scenes import BOUNDS, CALM, SCENES, table
from include.local import stack
from include.local.rest import Airflow
from include.settings import ROOT, Settings, from_env

#: A rollout of seconds in place of minutes, which labels decide too, since callers send them back.
PLAN = {
    "shadow": "8s",
    "warm_up": "1s",
    "min_requests": 300,
    "max_duration": "10m",
    "on_inconclusive": "hold",
    "steps": [{"weight": 10, "hold": "60s"}, {"weight": 50, "hold": "60s"}, {"weight": 100, "hold": "30s"}],
    "guards": {"error_rate": 0.02, "slow_ms": 500, "slow_share": 0.3, "logloss": 0.1},
}


def prepare(home: Path) -> Settings:
    """Write a home with a spec whose rollouts take seconds, and return its settings."""
    models = home / "models"
    models.mkdir(parents=True)
    spec = yaml.safe_load((ROOT / "include" / "models" / "flights.yaml").read_text())
    spec |= {"rollout": PLAN}
    (models / "flights.yaml").write_text(yaml.safe_dump(spec))
    ports = {
        "airflow_port": 18080,
        "mlflow_port": 15000,
        "gateway_port": 18088,
        "gateway_admin_port": 18089,
        "stable_port": 19011,
        "canary_port": 19012,
    }
    return replace(from_env({"PERENNIAL_HOME": str(home), "PERENNIAL_MODELS": str(models)}), **ports)


def play(settings: Settings, names: list[str], rate: float, console: Console) -> tuple[dict[str, Any], dict[str, bool]]:
    """Play the scenes; return the figures of each with its seconds, and which claims hold."""
    figures_by_scene: dict[str, Any] = {}
    holds: dict[str, bool] = {}
    with Airflow(settings.airflow_url, stack.password(settings)) as airflow:
        live = Live(settings, airflow, console)
        started_at = time.monotonic()
        live.prepare()
        console.print(f"prepared in {time.monotonic() - started_at:.0f} s")
        for name in names:
            started_at = time.monotonic()
            try:
                figures, claims = SCENES[name](live, rate)
            except TimeoutError as error:
                figures, claims = {"waited in vain for": str(error)}, {"came to its end": False}
            figures_by_scene[name] = {"seconds": round(time.monotonic() - started_at), **figures}
            claims["no split beyond the plan"] = not figures.get("unplanned")
            holds |= {f"{name}: {claim}": is_true for claim, is_true in claims.items()}
            console.print(f"[bold]{name}[/]: {figures_by_scene[name]} {claims}")
    return figures_by_scene, holds


def main() -> int:
    """Bring the stack up, play the chosen scenes, print their figures, and return 0 if all claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, action="append", help="all when left out; may be repeated")
    parser.add_argument("--rate", type=float, default=2000, help="requests a second of `good` and `killed_canary`")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True, width=150)
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(Path(folder) / "home")
        try:
            settings = stack.up(settings, lambda text: console.print(f"[dim]{text} …"))
            figures_by_scene, holds = play(
                settings, [n for n in SCENES if n in (options.scene or SCENES)], options.rate, console
            )
        finally:
            stack.down(settings)
    if "victims" in figures_by_scene.get("kills", {}):
        print(table(figures_by_scene["kills"]["victims"]))
    load = {"rate": options.rate, "calm": CALM, "cores": os.cpu_count()}
    print(
        json.dumps(
            {"bench": "rollout", "load": load, "scenes": figures_by_scene, "bounds": BOUNDS, "holds": holds},
            default=str,
        )
    )
    return 0 if all(holds.values()) else 1
