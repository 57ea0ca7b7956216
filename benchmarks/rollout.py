"""Rollouts on the real stack under load, with everything that drives one killed at each step: `make bench-rollout`.

Two equal models and one trained on wrong outcomes are rolled out through Airflow while recorded flights are sent through the
gateway. The last line is one JSON object: what each scene showed, the bounds, and whether they hold.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console

from include import specs
from include.local import flights, stack, story
from include.local.rest import Airflow
from include.ports import Reference, Routes
from include.settings import ROOT, Settings, from_env
from include.stages import records, rollout, rollout_state
from include.wiring import Parts

MODEL = story.MODEL
#: Seconds in place of minutes; labels decide too, since callers send them back.
PLAN = {
    "shadow": "8s", "warm_up": "1s", "min_requests": 300, "max_duration": "10m", "on_inconclusive": "hold",
    "steps": [{"weight": 10, "hold": "60s"}, {"weight": 50, "hold": "60s"}, {"weight": 100, "hold": "30s"}],
    "guards": {"error_rate": 0.02, "slow_ms": 500, "slow_share": 0.3, "logloss": 0.1},
}  # fmt: skip
ROWS, RATE, CALM = 20_000, 2000, 300
BOUNDS = {"good: failed": 0, "killed canary: worst second": 0.01, "killed canary: failed after 2 s": 0}
#: What drives or carries a rollout, by how its process is known.
VICTIMS = ("scheduler", "triggerer", "worker", "gateway", "canary")
END = (rollout_state.Phase.PROMOTED, rollout_state.Phase.ROLLED_BACK)


class Scene:
    """The stack with a champion, and what a person or a fault does to its rollouts."""

    def __init__(self, settings: Settings, airflow: Airflow, console: Console) -> None:
        self.settings, self.airflow, self.console = settings, airflow, console
        self.parts = Parts(settings)
        self.spec = specs.find(MODEL, settings.models)
        self.bodies = settings.home / "rows.jsonl"
        self.asset = next(
            a["id"] for a in airflow.get("/assets", limit=100)["assets"] if a["name"] == f"{MODEL}.challenger"
        )

    def callers(self) -> None:
        """The bodies of April's requests, and their labels sent back beforehand, by key."""
        rows = flights.requests(date(2013, 4, 1), date(2013, 5, 1))[:ROWS]
        self.bodies.write_text("\n".join(json.dumps(row) for row in rows))
        late = flights.recorded(flights.data_folder()).select("flight_id", "late").drop_nulls()
        known = dict(late.iter_rows())
        labels = [
            {"key": row["flight_id"], "label": known[row["flight_id"]]} for row in rows if row["flight_id"] in known
        ]
        for start in range(0, len(labels), 1000):
            answer = httpx.post(f"{self.settings.gateway_url}/feedback", json={"labels": labels[start : start + 1000]})
            answer.raise_for_status()

    @contextmanager
    def load(self, rate: float) -> Iterator[dict[str, Any]]:
        """Requests at that rate while it lasts; the report is there at the end."""
        command = [sys.executable, "-m", "benchmarks.load", "--port", str(self.settings.gateway_port), "--bodies",
                   str(self.bodies), "--seconds", "600", "--rate", str(rate), "--connections", "32"]  # fmt: skip
        report: dict[str, Any] = {"began": time.monotonic()}
        sender = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            yield report
        finally:
            sender.terminate()
            out, _ = sender.communicate(timeout=60)
            report |= json.loads(out)

    def challenge(self, version: str) -> None:
        """Approve that version: its rollout starts."""
        known = self.state()
        body = {"asset_id": self.asset, "extra": {"version": version}}
        self.airflow._call("POST", "/api/v2/assets/events", json=body)
        self.until(lambda: (s := self.state()) is not None and (known is None or s.run != known.run), 90, "a rollout")

    def state(self) -> rollout_state.State | None:
        return rollout_state.load(self.settings.home / "rollouts", MODEL)

    def phase(self) -> rollout_state.Phase | None:
        state = self.state()
        return state.phase if state else None

    def at_step(self, step: int, requests: int = 1) -> None:
        """Return once the step has seen so many requests, or the rollout has ended."""

        def there() -> bool:
            state = self.state()
            return bool(
                state and (not state.active or state.step > step or (state.step == step and state.requests >= requests))
            )

        self.until(there, 180, f"step {step}")

    def ended(self, timeout: float = 420) -> str:
        """How the rollout ended, with every Airflow task of it done; traffic must be what the plan knows all the while."""
        planned = [Routes(), *(stage.routes for stage in rollout.plan(self.spec))]
        strange: list[Routes] = []

        def over() -> bool:
            routes = self.parts.router().current(MODEL)
            strange.extend([routes] if routes not in planned else [])
            newest = self.airflow.runs(f"{MODEL}.rollout")
            return self.phase() in END and bool(newest) and newest[0]["state"] in ("success", "failed")

        try:
            self.until(over, timeout, "the rollout's end")
        except TimeoutError:
            return f"not ended: {self.phase()}"
        return f"{self.phase()}{f', traffic unknown to the plan: {strange}' if strange else ''}"

    def until(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                if true():
                    return
            except Exception as fault:  # a part that was killed does not answer for a while
                self.console.print(f"[dim]{type(fault).__name__} while waiting for {what}")
                time.sleep(1)
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.1)

    def kill(self, victim: str) -> int:
        """kill -9; how many processes died of it."""
        ports = {"gateway": self.settings.gateway_port, "canary": self.settings.canary_port}
        found = [p for p in psutil.process_iter(["pid", "cmdline"]) if self._is(victim, p, ports.get(victim))]
        for process in found:
            process.send_signal(signal.SIGKILL)
        return len(found)

    def _is(self, victim: str, process: psutil.Process, port: int | None) -> bool:
        try:
            if process.environ().get("PERENNIAL_HOME") != str(self.settings.home):
                return False
            words = " ".join(process.info["cmdline"] or [])
            if port:
                return any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections("tcp4"))
        except psutil.Error:
            return False
        if victim == "worker":
            return "LocalExecutor" in words or "task supervisor" in words or "airflow worker" in words
        return victim in words and "airflow" in words

    def train(self, cause: str) -> str:
        """A training's run, followed to its end; its rollout is the caller's."""
        teller = story.Story(self.settings, self.airflow, _quiet(self.console))
        run = self.airflow.trigger(f"{MODEL}.train", {"cause": cause})
        teller.follow("train", run)
        return run

    def register_spoiled(self) -> str:
        """Train on wrong outcomes; what the gates hold back is let through by hand, as a person in a hurry would."""
        inbox = self.settings.home / "inbox" / MODEL
        flights.spoil(inbox, date(2013, 1, 1), date(2013, 3, 10))
        teller = story.Story(self.settings, self.airflow, _quiet(self.console))
        teller.land(*story.WINTER)
        run = self.train("wrong outcomes")
        folder = next(self.settings.runs.glob(f"{MODEL}/*{run[-12:]}*"))
        evaluation = records.reference(folder / "evaluation" / "evaluation.json")
        artifact = Reference(**records.read(evaluation)["models"]["challenger"])
        return self.parts.registry().register(MODEL, artifact, {"approval": "by hand"}, None).number


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
        died = time.monotonic() - seen["began"]
        killed = scene.kill("canary")
        end = scene.ended()
    after = sum(n for second, (n, _) in seen["failing_seconds"].items() if int(second) > died + 2)
    return {"ended": end, "killed": killed, "failed_after_2_s": after, **_told(seen)}


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
    scene.until(lambda: "held for a person" in _last_sentence(scene), 120, "a held step")
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


def _last_sentence(scene: Scene) -> str:
    state = scene.state()
    if state is None or state.step < 0 or not state.active:
        return ""
    from include.stages import rollout_look

    return rollout_look.decide(scene.spec, state, rollout_look.judge(scene.spec, state), datetime.now(UTC)).sentence


def _quiet(console: Console) -> Any:
    from rich.progress import Progress

    progress = Progress(console=console, disable=True)
    progress.add_task("scene", total=None)
    return progress


def prepare(home: Path) -> Settings:
    """A home with a spec of its own, whose rollouts take seconds."""
    models = home / "models"
    models.mkdir(parents=True)
    spec = yaml.safe_load((ROOT / "include" / "models" / "flights.yaml").read_text())
    spec |= {"rollout": PLAN, "training": {**spec["training"], "epochs": 1}}
    (models / "flights.yaml").write_text(yaml.safe_dump(spec))
    ports = {"airflow_port": 18080, "mlflow_port": 15000, "gateway_port": 18088, "gateway_admin_port": 18089,
             "stable_port": 19011, "canary_port": 19012}  # fmt: skip
    return replace(from_env({"PERENNIAL_HOME": str(home), "PERENNIAL_MODELS": str(models)}), **ports)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=("good", "killed_canary", "spoiled", "held", "kills"), action="append")
    asked = parser.parse_args().scene or ["good", "killed_canary", "spoiled", "held", "kills"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True, width=150)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = prepare(Path(folder) / "home")
        try:
            settings = stack.up(settings, lambda text: console.print(f"[dim]{text} …"))
            with Airflow(settings.airflow_url, stack.password(settings)) as airflow:
                teller = story.Story(settings, airflow, _quiet(console))
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
                            "spoiled": lambda: spoiled(scene), "held": lambda o=other: held(scene, o),
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
