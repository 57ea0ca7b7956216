"""The stack on which `benchmarks/rollout/scenes.py` plays: versions, load, a person's words, kills, and what can be awaited."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import httpx
import psutil
import yaml
from rich.console import Console
from rich.progress import Progress

from benchmarks.rollout import traffic
from include.artifacts.store import Reference
from include.domain.errors import Unavailable
from include.domain.events import RolloutChanged, StepAnalysed
from include.domain.rollout.actions import RolloutAction
from include.domain.rollout.decision import decide
from include.local import demo, flights
from include.local.rest import FINISHED, Airflow
from include.ports.traffic import Routes
from include.settings import Settings
from include.spec import loading
from include.spec.model_spec import ModelSpec
from include.stages.rollout import analysis, rollout, state_file
from include.stages.rollout.state import RolloutState
from include.stages.rollout.steps import steps_of
from include.wiring import Parts

MODEL = demo.MODEL
#: Requests sent over and over.
ROWS = 20_000
#: Seconds for which the gateway's counters are followed after a kill or a word; a killed slot is not back so soon.
FOLLOWED = 1.5
DAGS = [f"{MODEL}.{family}" for family in ("data", "train", "rollout", "steer")]
_DATA, TRAIN, ROLLOUT, STEER = DAGS


class Live:
    """The stack with a champion, and what a person or a fault does to its rollouts."""

    def __init__(self, settings: Settings, airflow: Airflow, console: Console) -> None:
        self.settings, self.airflow, self.console = settings, airflow, console
        self.parts = Parts(settings)
        self.bodies = settings.home / "rows.jsonl"
        progress = Progress(console=console, disable=True)
        progress.add_task("scene", total=None)
        self.loop = demo.Demo(settings, airflow, progress)

    def prepare(self) -> None:
        """Version 1 is champion, its twin could be, and callers have what they ask and tell."""
        self.airflow.await_dags(set(DAGS))
        for dag in DAGS:
            self.airflow.pause(dag, paused=False)
        self.loop.land(*demo.WINTER)
        self.loop.ship(self.airflow.trigger(TRAIN, {}), demo.SPRING[0])
        assert (self.train("a twin of the champion"), self.version("champion")) == ("success", "1")
        self.callers()

    def callers(self) -> None:
        """The bodies of April's requests, and their labels sent back beforehand, by key."""
        rows = flights.requests(date(2013, 4, 1), date(2013, 5, 1))[:ROWS]
        self.bodies.write_text("\n".join(json.dumps(row) for row in rows))
        late = dict(flights.recorded(flights.data_folder()).select("flight_id", "late").drop_nulls().iter_rows())
        labels = [
            {"key": row["flight_id"], "label": late[row["flight_id"]]} for row in rows if row["flight_id"] in late
        ]
        for start in range(0, len(labels), 1000):
            answer = httpx.post(f"{self.settings.gateway_url}/feedback", json={"labels": labels[start : start + 1000]})
            answer.raise_for_status()

    def train(self, cause: str) -> str:
        """A training that starts no rollout; how it ended."""
        self.airflow.pause(ROLLOUT, paused=True)
        self.trained = self.airflow.trigger(TRAIN, {"cause": cause})
        ended = self.loop.follow("train", self.trained)
        self.airflow.pause(ROLLOUT, paused=False)
        return ended

    @property
    def other(self) -> str:
        """Of version 1 and its twin the one that is not champion."""
        return "1" if self.version("champion") == "2" else "2"

    @cached_property
    def spoiled(self) -> str:
        """A version trained on wrong outcomes, which the gates reject and a person in a hurry registers by hand."""
        flights.spoil(self.settings.home / "inbox" / MODEL, date(2013, 1, 1), date(2013, 3, 10))
        self.loop.land(*demo.WINTER)
        assert self.train("wrong outcomes") == "failed"
        artifact = Reference(**self.airflow.xcom(TRAIN, self.trained, "train"))
        return self.parts.registry().register(MODEL, artifact, {"approval": "by hand"}, None).number

    def version(self, alias: str) -> str | None:
        found = self.parts.registry().version_by_alias(MODEL, alias)
        return found.number if found else None

    @property
    def spec(self) -> ModelSpec:
        return loading.find(MODEL, self.settings.models)

    @property
    def state(self) -> RolloutState:
        """Where the newest rollout stands."""
        state = state_file.load(self.parts.rollout_folder(), MODEL)
        assert state is not None, "version 1 was rolled out"
        return state

    def analyses(self, version: str) -> list[StepAnalysed]:
        """Return the ledger's analyses of the version's rollouts, oldest first."""
        return [event for event in self.parts.ledger().read(MODEL, StepAnalysed) if event.version == version]

    def changes(self, version: str) -> list[RolloutChanged]:
        """Return how the version's rollouts began and ended, from the ledger, oldest first."""
        return [event for event in self.parts.ledger().read(MODEL, RolloutChanged) if event.version == version]

    @contextmanager
    def plan(self, *, runs: int = 1, **changes: Any) -> Iterator[None]:
        """Another `rollout` section in the spec meanwhile, once Airflow lets so many runs of the DAG in."""
        path = self.settings.models / f"{MODEL}.yaml"
        before = path.read_text()
        spec = yaml.safe_load(before)
        path.write_text(yaml.safe_dump(spec | {"rollout": spec["rollout"] | changes}))
        self.until(lambda: self.airflow.get(f"/dags/{ROLLOUT}")["max_active_runs"] == runs, 120, "the changed DAG")
        try:
            yield
        finally:
            path.write_text(before)

    def approve(self, version: str) -> None:
        """As the task `release` does."""
        self.airflow.announce(f"{MODEL}.challenger", {"version": version})

    def waits(self) -> bool:
        """Whether Airflow keeps an approval back, because a rollout runs."""
        return bool(self.airflow.get(f"/dags/{ROLLOUT}/assets/queuedEvents")["total_entries"])

    def begun(self, version: str) -> str:
        """Return once that version is rolled out: its Airflow run."""
        self.until(lambda: self.state.active and self.state.version == version, 90, f"the rollout of version {version}")
        return str(self.airflow.runs(ROLLOUT)[0]["dag_run_id"])

    def challenge(self, version: str) -> str:
        self.approve(version)
        return self.begun(version)

    def at_step(self, step: int, requests: int = 1) -> None:
        """Return once the step has seen so many requests, or is over, or the rollout is."""

        def there() -> bool:
            state = self.state
            return not state.active or state.step > step or (state.step == step and state.requests >= requests)

        self.until(there, 180, f"step {step}")

    def steer(self, action: RolloutAction, reason: str = "") -> None:
        """Trigger the steering DAG as a person does, and return once it has run."""
        run = self.airflow.trigger(STEER, {"word": action, "reason": reason})
        for _ in self.airflow.follow(STEER, run, timeout=90):
            pass
        assert self.airflow.run(STEER, run)["state"] == "success", action

    def await_analysis(self, version: str, sentence: str, outcome: str = "") -> None:
        """Return once the newest recorded analysis has this sentence and outcome."""

        def there() -> bool:
            last = self.analyses(version)[-1]
            return sentence in last.sentence and outcome in last.verdict.outcome

        self.until(there, 120, f"an analysis that is {sentence} {outcome}")

    def await_held(self) -> None:
        """Return once the step is held for a person."""

        def there() -> bool:
            spec, state = self.spec, self.state
            if state.step < 0 or not state.active:
                return False
            progress = analysis.progress_of(spec, state, datetime.now(UTC))
            return "held for a person" in decide(spec.rollout, progress, analysis.judge(spec, state)).sentence

        self.until(there, 120, "a held step")

    def ended(self, version: str, run: str, timeout: float = 600) -> str:
        """How the version's newest rollout ended, with every Airflow task of it done."""
        try:
            self.until(lambda: self.airflow.run(ROLLOUT, run)["state"] in FINISHED, timeout, "the rollout's end")
        except TimeoutError:
            return f"not ended after {timeout:.0f} s"
        return self.changes(version)[-1].event

    def reason(self, version: str) -> str:
        """Why the version's newest rollout ended."""
        return self.changes(version)[-1].reason

    def load(self, rate: float) -> AbstractContextManager[dict[str, Any]]:
        """Requests at that rate meanwhile, and what callers and the gateway showed."""
        planned = [rollout.ALL_TO_STABLE, *(step.routes for step in steps_of(self.spec.rollout))]
        return traffic.load(self.settings, self.bodies, rate, planned)

    def split(self) -> Routes:
        return traffic.split(self.settings)

    def until(self, true: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with suppress(
                Unavailable, httpx.HTTPError, LookupError
            ):  # a part that was killed does not answer for a while
                if true():
                    return
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

    def last_request_after(self, since: float) -> float:
        """Seconds from `since` (monotonic) until the gateway sent the canary its last request, as far as it is followed."""
        counted, last = -1, 0.0
        while (now := time.monotonic() - since) < FOLLOWED:
            counts = self.parts.signals().request_counts(MODEL, self.spec.rollout.guards.slow_ms)["canary"].requests
            if counts != counted:
                counted, last = counts, now
            time.sleep(0.02)
        return round(last, 2)
