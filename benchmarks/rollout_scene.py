"""The stack that the scenes of `benchmarks/rollout.py` play on: load, approvals, kills, and what can be awaited."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import httpx
import psutil
from rich.console import Console

from include import specs
from include.local import flights, story
from include.local.rest import Airflow
from include.ports import Reference, Routes
from include.settings import ROOT, Settings
from include.stages import records, rollout, rollout_state
from include.wiring import Parts

MODEL = story.MODEL
#: Requests sent over and over.
ROWS = 20_000
#: Seconds for which the gateway's counters are followed after a kill or a word; a killed slot is not back so soon.
FOLLOWED = 1.5
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
        report: dict[str, Any] = {}
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

    def kill(self, victim: str, by: signal.Signals = signal.SIGKILL) -> int:
        """kill -9, or another signal; how many processes got it."""
        ports = {name: getattr(self.settings, f"{name}_port") for name in ("gateway", "canary", "mlflow")}
        found = [p for p in psutil.process_iter(["pid", "cmdline"]) if self._is(victim, p, ports.get(victim))]
        for process in found:
            process.send_signal(by)
        return len(found)

    def last_request_after(self, since: float) -> float:
        """Seconds from `since` (monotonic) until the gateway sent the canary its last request, as far as it is followed."""
        counted, last = -1, 0.0
        while (now := time.monotonic() - since) < FOLLOWED:
            counts = self.parts.signals().counts(MODEL, self.spec.rollout.guards.slow_ms)["canary"].requests
            if counts != counted:
                counted, last = counts, now
            time.sleep(0.02)
        return round(last, 2)

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
        teller = story.Story(self.settings, self.airflow, silent(self.console))
        run = self.airflow.trigger(f"{MODEL}.train", {"cause": cause})
        teller.follow("train", run)
        return run

    def register_spoiled(self) -> str:
        """Train on wrong outcomes; what the gates hold back is let through by hand, as a person in a hurry would."""
        inbox = self.settings.home / "inbox" / MODEL
        flights.spoil(inbox, date(2013, 1, 1), date(2013, 3, 10))
        teller = story.Story(self.settings, self.airflow, silent(self.console))
        teller.land(*story.WINTER)
        run = self.train("wrong outcomes")
        folder = self.settings.runs / MODEL / re.sub(r"[^A-Za-z0-9_.-]+", "-", run)
        evaluation = records.reference(folder / "evaluation" / "evaluation.json")
        artifact = Reference(**records.read(evaluation)["models"]["challenger"])
        return self.parts.registry().register(MODEL, artifact, {"approval": "by hand"}, None).number


def last_sentence(scene: Scene) -> str:
    state = scene.state()
    if state is None or state.step < 0 or not state.active:
        return ""
    from include.stages import rollout_look

    return rollout_look.decide(scene.spec, state, rollout_look.judge(scene.spec, state), datetime.now(UTC)).sentence


def silent(console: Console) -> Any:
    from rich.progress import Progress

    progress = Progress(console=console, disable=True)
    progress.add_task("scene", total=None)
    return progress
