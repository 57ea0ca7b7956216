"""Drive the stack for `benchmarks/rollout/scenes.py`: train versions, send load, steer, kill processes, await what follows."""

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
#: The number of different requests, which are sent over and over.
ROWS = 20_000
#: Seconds for which the gateway's counters are watched after a kill or a rollback; a killed slot is not back so soon.
COUNTERS_WATCHED = 1.5
DAGS = [f"{MODEL}.{dag_kind}" for dag_kind in ("data", "train", "rollout", "steer")]
_DATA, TRAIN, ROLLOUT, STEER = DAGS


class Live:
    """The running stack with a champion, and what a person or a failure does to its rollouts."""

    def __init__(self, settings: Settings, airflow: Airflow, console: Console) -> None:
        self.settings, self.airflow, self.console = settings, airflow, console
        self.parts = Parts(settings)
        self.bodies = settings.home / "rows.jsonl"
        progress = Progress(console=console, disable=True)
        progress.add_task("scene", total=None)
        self.loop = demo.Demo(settings, airflow, progress)

    def prepare(self) -> None:
        """Make version 1 champion, train its twin, and write the callers' requests and labels."""
        self.airflow.await_dags(set(DAGS))
        for dag in DAGS:
            self.airflow.pause(dag, paused=False)
        self.loop.land(*demo.WINTER)
        self.loop.ship(self.airflow.trigger(TRAIN, {}), demo.SPRING[0])
        assert (self.train("a twin of the champion"), self.version("champion")) == ("success", "1")
        self.write_requests()

    def write_requests(self) -> None:
        """Write the bodies of April's requests, and send their labels by key beforehand."""
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
        """Train a version without a rollout, and return the state in which the Airflow run ended."""
        self.airflow.pause(ROLLOUT, paused=True)
        self.training_run = self.airflow.trigger(TRAIN, {"cause": cause})
        ended = self.loop.follow("train", self.training_run)
        self.airflow.pause(ROLLOUT, paused=False)
        return ended

    @property
    def challenger(self) -> str:
        """Return whichever of version 1 and its twin is not champion."""
        return "1" if self.version("champion") == "2" else "2"

    @cached_property
    def spoiled_version(self) -> str:
        """Return a version trained on wrong outcomes, which the gates reject and a person in a hurry registers by hand."""
        flights.spoil(self.settings.home / "inbox" / MODEL, date(2013, 1, 1), date(2013, 3, 10))
        self.loop.land(*demo.WINTER)
        assert self.train("wrong outcomes") == "failed"
        artifact = Reference(**self.airflow.xcom(TRAIN, self.training_run, "train"))
        return self.parts.registry().register(MODEL, artifact, {"approval": "by hand"}, None).number

    def version(self, alias: str) -> str | None:
        """Return the number of the version that has this alias, if any has."""
        version = self.parts.registry().version_by_alias(MODEL, alias)
        return version.number if version else None

    @property
    def spec(self) -> ModelSpec:
        """Return the spec as the file holds it now."""
        return loading.find(MODEL, self.settings.models)

    @property
    def state(self) -> RolloutState:
        """Return the state of the newest rollout."""
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
    def changed_plan(self, *, runs: int = 1, **changes: Any) -> Iterator[None]:
        """Change the spec's `rollout` section, and yield once Airflow allows that many runs of the DAG; undo it at the end."""
        path = self.settings.models / f"{MODEL}.yaml"
        before = path.read_text()
        spec = yaml.safe_load(before)
        path.write_text(yaml.safe_dump(spec | {"rollout": spec["rollout"] | changes}))
        self.await_condition(
            lambda: self.airflow.get(f"/dags/{ROLLOUT}")["max_active_runs"] == runs, 120, "the changed DAG"
        )
        try:
            yield
        finally:
            path.write_text(before)

    def approve(self, version: str) -> None:
        """Approve a version for rollout, as the task `release` does."""
        self.airflow.announce(f"{MODEL}.challenger", {"version": version})

    def has_queued_approval(self) -> bool:
        """Return whether Airflow holds an approval back because a rollout runs."""
        return bool(self.airflow.get(f"/dags/{ROLLOUT}/assets/queuedEvents")["total_entries"])

    def await_start(self, version: str) -> str:
        """Wait until that version is rolled out, and return the id of the Airflow run."""
        self.await_condition(
            lambda: self.state.active and self.state.version == version, 90, f"the rollout of version {version}"
        )
        return str(self.airflow.runs(ROLLOUT)[0]["dag_run_id"])

    def start_rollout(self, version: str) -> str:
        """Approve a version, wait until it is rolled out, and return the id of the Airflow run."""
        self.approve(version)
        return self.await_start(version)

    def await_step(self, step: int, requests: int = 1) -> None:
        """Return once the step has counted that many requests, or the step or the rollout is over."""

        def is_reached() -> bool:
            state = self.state
            return not state.active or state.step > step or (state.step == step and state.requests >= requests)

        self.await_condition(is_reached, 180, f"step {step}")

    def steer(self, action: RolloutAction, reason: str = "") -> None:
        """Trigger the steering DAG as a person does, and return once it has run."""
        run = self.airflow.trigger(STEER, {"word": action, "reason": reason})
        for _ in self.airflow.follow(STEER, run, timeout=90):
            pass
        assert self.airflow.run(STEER, run)["state"] == "success", action

    def await_analysis(self, version: str, sentence: str, outcome: str = "") -> None:
        """Return once the newest recorded analysis has this sentence and outcome."""

        def is_recorded() -> bool:
            last = self.analyses(version)[-1]
            return sentence in last.sentence and outcome in last.verdict.outcome

        self.await_condition(is_recorded, 120, f"an analysis that is {sentence} {outcome}")

    def await_held(self) -> None:
        """Return once the step is held for a person."""

        def is_held() -> bool:
            spec, state = self.spec, self.state
            if state.step < 0 or not state.active:
                return False
            progress = analysis.progress_of(spec, state, datetime.now(UTC))
            return "held for a person" in decide(spec.rollout, progress, analysis.judge(spec, state)).sentence

        self.await_condition(is_held, 120, "a held step")

    def await_end(self, version: str, run: str, timeout: float = 600) -> str:
        """Wait until the Airflow run has ended, and return how the version's newest rollout ended."""
        try:
            self.await_condition(
                lambda: self.airflow.run(ROLLOUT, run)["state"] in FINISHED, timeout, "the rollout's end"
            )
        except TimeoutError:
            return f"not ended after {timeout:.0f} s"
        return self.changes(version)[-1].event

    def reason(self, version: str) -> str:
        """Return why the version's newest rollout ended."""
        return self.changes(version)[-1].reason

    def load(self, rate: float) -> AbstractContextManager[dict[str, Any]]:
        """Send requests at that rate meanwhile, and yield the report; see `traffic.load`."""
        planned = [rollout.ALL_TO_STABLE, *(step.routes for step in steps_of(self.spec.rollout))]
        return traffic.load(self.settings, self.bodies, rate, planned)

    def active_routes(self) -> Routes:
        """Return what the gateway serves now."""
        return traffic.active_routes(self.settings)

    def await_condition(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Return once the condition is true; raise TimeoutError, which names `what`, if it is not in time."""
        deadline = time.monotonic() + timeout
        while True:
            # A part that was killed does not answer for a while.
            with suppress(Unavailable, httpx.HTTPError, LookupError):
                if condition():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.1)

    def kill(self, victim: str, signal_number: signal.Signals = signal.SIGKILL) -> int:
        """Send the signal to the victim's processes, and return how many there were."""
        ports = {name: getattr(self.settings, f"{name}_port") for name in ("gateway", "canary", "mlflow")}
        processes = [p for p in psutil.process_iter(["pid", "cmdline"]) if self._matches(victim, p, ports.get(victim))]
        for process in processes:
            process.send_signal(signal_number)
        return len(processes)

    def _matches(self, victim: str, process: psutil.Process, port: int | None) -> bool:
        try:
            if process.environ().get("PERENNIAL_HOME") != str(self.settings.home):
                return False
            command = " ".join(process.info["cmdline"] or [])
            if port:
                return any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections("tcp4"))
        except psutil.Error:
            return False
        if victim == "worker":
            return "LocalExecutor" in command or "task supervisor" in command or "airflow worker" in command
        return victim in command and "airflow" in command

    def last_request_after(self, since: float) -> float:
        """Return the seconds from `since` (monotonic) until the gateway sent the canary its last request while it was watched."""
        last_counts, last = -1, 0.0
        while (now := time.monotonic() - since) < COUNTERS_WATCHED:
            counts = self.parts.signals().request_counts(MODEL, self.spec.rollout.guards.slow_ms)["canary"].requests
            if counts != last_counts:
                last_counts, last = counts, now
            time.sleep(0.02)
        return round(last, 2)
