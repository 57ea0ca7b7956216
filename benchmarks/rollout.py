"""Rollouts on the real stack under load, with everything that drives one killed at each step: `make bench-rollout`.

Two equal models and one trained on wrong outcomes are rolled out through Airflow while recorded flights are sent through the
gateway. The last line is one JSON object: what each scene showed, the bounds, and whether they hold.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.rollout_scene import MODEL, Scene, last_sentence, silent
from include.local import stack, story
from include.local.rest import Airflow
from include.settings import ROOT, Settings, from_env
from include.stages import rollout, rollout_state

#: Seconds in place of minutes; labels decide too, since callers send them back.
PLAN = {
    "shadow": "8s", "warm_up": "1s", "min_requests": 300, "max_duration": "10m", "on_inconclusive": "hold",
    "steps": [{"weight": 10, "hold": "60s"}, {"weight": 50, "hold": "60s"}, {"weight": 100, "hold": "30s"}],
    "guards": {"error_rate": 0.02, "slow_ms": 500, "slow_share": 0.3, "logloss": 0.1},
}  # fmt: skip
RATE, CALM = 2000, 300
BOUNDS = {
    "good: failed": 0, "killed canary: worst second": 0.01, "killed canary: failed after 2 s": 0,
    "killed canary: traffic ends after": 1.0, "back: takes effect after": 1.0,
}  # fmt: skip
#: What drives or carries a rollout, by how its process is known.
VICTIMS = ("scheduler", "triggerer", "worker", "gateway", "canary")
SCENES = ("good", "killed_canary", "back", "spoiled", "held", "kills")


def good(scene: Scene) -> dict[str, Any]:
    """A good challenger goes all the way under the full rate."""
    with scene.load(RATE) as seen:
        scene.train("a twin of the champion")
        scene.until(lambda: (s := scene.state()) is not None and not s.first_release, 120, "the rollout")
        end = scene.ended()
    return {"ended": end, **_told(seen)}


def killed_canary(scene: Scene, version: str) -> dict[str, Any]:
    """The canary dies at 50 %."""
    with scene.load(RATE) as seen:
        scene.challenge(version)
        scene.at_step(2, 2000)
        died, since = time.time(), time.monotonic()
        killed = scene.kill("canary")
        quiet = scene.last_request_after(since)
        end = scene.ended()
    after = sum(n for second, (n, _) in seen["failing_seconds"].items() if seen["began"] + int(second) > died + 2)
    return {"ended": end, "killed": killed, "traffic_ends_after_s": quiet, "failed_after_2_s": after, **_told(seen)}


def back(scene: Scene, version: str) -> dict[str, Any]:
    """Somebody rolls back at 50 % while neither MLflow nor the scheduler answers."""
    with scene.load(CALM) as seen:
        scene.challenge(version)
        scene.at_step(2, 500)
        stopped = {victim: scene.kill(victim, signal.SIGSTOP) for victim in ("mlflow", "scheduler")}
        since = time.monotonic()
        rollout.rollback(MODEL, scene.parts.controls(), "somebody said so")
        returned, quiet = round(time.monotonic() - since, 2), scene.last_request_after(since)
        for victim in stopped:
            scene.kill(victim, signal.SIGCONT)
        end = scene.ended()
    return {
        "ended": end,
        "stopped": stopped,
        "returned_after_s": returned,
        "takes_effect_after_s": quiet,
        **_told(seen),
    }


def spoiled(scene: Scene) -> dict[str, Any]:
    """A challenger trained on wrong outcomes, which labels give away."""
    version = scene.register_spoiled()
    with scene.load(CALM) as seen:
        scene.challenge(version)
        end = scene.ended()
    state = scene.state()
    assert state is not None
    counts = state.traffic.get("canary", rollout_state.NONE)
    return {"ended": end, "why": state.reason, "canary_requests": counts.requests, **_told(seen)}


def held(scene: Scene, version: str) -> dict[str, Any]:
    """No traffic decides nothing: the step is held until a person aborts it from Airflow."""
    scene.challenge(version)
    scene.until(lambda: "held for a person" in last_sentence(scene), 120, "a held step")
    said = scene.airflow.trigger(f"{MODEL}.steer", {"word": "abort", "reason": "nobody came"})
    end = scene.ended()
    state = scene.state()
    return {
        "ended": end,
        "why": state.reason if state else "",
        "steer": scene.airflow.run(f"{MODEL}.steer", said)["state"],
    }


def kills(scene: Scene, version: str) -> dict[str, Any]:
    """Each victim is killed at every step of a rollout."""
    table = {}
    for victim in VICTIMS:
        with scene.load(CALM) as seen:
            scene.challenge(version)
            died = []
            for step in range(4):
                scene.at_step(step)
                state = scene.state()
                died.append(f"{rollout.plan(scene.spec)[state.step].name if state else '?'}: {scene.kill(victim)}")
            end = scene.ended()
        table[victim] = {"killed at": died, "ended": end, **_told(seen)}
        scene.console.print(f"{victim}: {table[victim]}")
        champion = scene.parts.registry().alias(MODEL, "champion")
        version = "1" if champion is not None and champion.number == "2" else "2"
    return table


def _told(seen: dict[str, Any]) -> dict[str, Any]:
    """What the callers saw; what was due and never sent, because two cores could not, is no failure but a lower rate."""
    failed = seen["requests"] - seen["statuses"].get("200", 0)
    named = {name: seen[name] for name in ("requests", "rps", "p99_ms", "worst_second", "failing_seconds", "statuses")}
    return {"failed": failed, **named}


def prepare(home: Path) -> Settings:
    """A home with a spec of its own, whose rollouts take seconds."""
    models = home / "models"
    models.mkdir(parents=True)
    spec = yaml.safe_load((ROOT / "include" / "models" / "flights.yaml").read_text())
    spec |= {"rollout": PLAN}
    (models / "flights.yaml").write_text(yaml.safe_dump(spec))
    ports = {"airflow_port": 18080, "mlflow_port": 15000, "gateway_port": 18088, "gateway_admin_port": 18089,
             "stable_port": 19011, "canary_port": 19012}  # fmt: skip
    return replace(from_env({"PERENNIAL_HOME": str(home), "PERENNIAL_MODELS": str(models)}), **ports)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, action="append", help="all when left out; may be repeated")
    chosen = parser.parse_args().scene or SCENES
    asked = [
        name for name in SCENES if name in chosen or name == "good"
    ]  # which makes the version that the others roll out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True, width=150)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(Path(folder) / "home")
        try:
            settings = stack.up(settings, lambda text: console.print(f"[dim]{text} …"))
            with Airflow(settings.airflow_url, stack.password(settings)) as airflow:
                teller = story.Story(settings, airflow, silent(console))
                airflow.await_dags({f"{MODEL}.{family}" for family in ("data", "train", "rollout", "steer")})
                for family in ("data", "train", "rollout"):
                    airflow.pause(f"{MODEL}.{family}", paused=False)
                teller.land(*story.WINTER)
                teller.ship(airflow.trigger(f"{MODEL}.train", {}), story.SPRING[0])
                scene = Scene(settings, airflow, console)
                scene.callers()
                for name in asked:
                    champion = scene.parts.registry().alias(MODEL, "champion")
                    other = "1" if champion is not None and champion.number == "2" else "2"
                    play = {"good": lambda: good(scene), "killed_canary": lambda o=other: killed_canary(scene, o),
                            "back": lambda o=other: back(scene, o), "spoiled": lambda: spoiled(scene), "held": lambda o=other: held(scene, o),
                            "kills": lambda o=other: kills(scene, o)}[name]  # fmt: skip
                    found[name] = play()
                    console.print(f"[bold]{name}[/]: {found[name]}")
        finally:
            stack.down(settings)
    holds = _holds(found)
    print(json.dumps({"bench": "rollout", "load": {"rate": RATE, "calm": CALM, "cores": os.cpu_count()},
                      "scenes": found, "bounds": BOUNDS, "holds": holds}, default=str))  # fmt: skip
    return 0 if all(holds.values()) else 1


def _holds(found: dict[str, Any]) -> dict[str, bool]:
    holds = {}
    if scene := found.get("good"):
        holds["good: promoted"] = scene["ended"] == "promoted"
        holds["good: failed"] = scene["failed"] <= BOUNDS["good: failed"]
    if scene := found.get("killed_canary"):
        holds["killed canary: worst second"] = scene["worst_second"] <= BOUNDS["killed canary: worst second"]
        holds["killed canary: failed after 2 s"] = (
            scene["failed_after_2_s"] <= BOUNDS["killed canary: failed after 2 s"]
        )
        holds["killed canary: traffic ends after"] = (
            scene["traffic_ends_after_s"] <= BOUNDS["killed canary: traffic ends after"]
        )
    if scene := found.get("back"):
        holds["back: rolled back"] = scene["ended"] == "rolled back"
        holds["back: takes effect after"] = scene["takes_effect_after_s"] <= BOUNDS["back: takes effect after"]
    if scene := found.get("spoiled"):
        holds["spoiled: rolled back"] = scene["ended"] == "rolled back"
    if scene := found.get("held"):
        holds["held: aborted by a person"] = scene["ended"] == "rolled back" and "nobody came" in scene["why"]
    if scene := found.get("kills"):
        holds["kills: the plan's traffic, and an end"] = all(
            row["ended"] in ("promoted", "rolled back") for row in scene.values()
        )
    return holds


if __name__ == "__main__":
    sys.exit(main())
