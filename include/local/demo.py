"""`make demo`: a winter model is born, shipped, goes stale in summer and is replaced, on real flights, through Airflow."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from include.domain.errors import Unavailable, UserMistake
from include.local import demo_report, flights, processes, stack
from include.local.replay import OutcomeFeed, TrafficReplay
from include.local.rest import Airflow
from include.reports import summary
from include.settings import Settings
from include.spec.loading import find
from include.wiring import Parts

MODEL, KEY = "flights", "flight_id"
WINTER = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC))
SPRING = (WINTER[1], datetime(2013, 7, 1, tzinfo=UTC))
#: Requests a second while a rollout is judged, and while the spring passes in a minute.
STEADY, FAST = 250.0, 2000.0
#: Seconds a person reads before answering; an answer given at once crosses with the end of the asking task's process.
READING = 3.0
MONTHS = timedelta(days=60)
#: Tasks of the two data, train and rollout runs and of the watch, and the replay: the bar's length.
STEPS = 2 * (4 + 9 + 6) + 4 + 1
#: Landing the history spoiled and mended, and a training that ends at its gate.
SPOILED = 2 * 4 + 9
#: The windows before this day are the training windows of July's first training: of them the spoiled history is made.
CLEAN = SPRING[1] - timedelta(days=22)
DONE = {"success", "failed", "skipped", "upstream_failed"}
MARKS = {"success": "[green]✓", "failed": "[red]✗", "skipped": "[dim]–", "upstream_failed": "[dim]·"}


def play(settings: Settings, console: Console, *, spoiled: bool = False) -> None:
    """Run the demo and leave the stack up; `spoiled` adds a challenger that the gates must reject.

    Ctrl-C stops everything.
    """
    started_at = time.monotonic()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    start_clean(settings)
    try:
        settings = stack.up(settings, lambda text: console.print(f"[dim]{text} …"))
        with (
            Airflow(settings.airflow_url, stack.password(settings)) as airflow,
            bar(console, STEPS + SPOILED * spoiled) as progress,
        ):
            demo = Demo(settings, airflow, progress)
            demo.run()
            if spoiled:
                demo.run_spoiled()
        demo_report.show(settings, MODEL, demo.timings, console)
        console.print(f"\nIt took {time.monotonic() - started_at:.0f} s. The stack stays up: make status, make down.")
    except KeyboardInterrupt:
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, signal.SIG_IGN)
        console.print("stopping everything …")
        stack.down(settings)
        raise


def start_clean(settings: Settings) -> None:
    """Empty the home. Raises UserMistake for one that no demo made: its data might be wanted."""
    mark = settings.home / "made-by-demo"
    if settings.home.exists() and any(settings.home.iterdir()) and not mark.exists():
        raise UserMistake(
            f"{settings.home} holds work that no demo made; set PERENNIAL_HOME to another folder for the demo"
        )
    processes.stop(settings.home)
    shutil.rmtree(settings.home, ignore_errors=True)
    stack.check_machine(settings.home)
    mark.touch()


@contextmanager
def bar(console: Console, steps: int) -> Iterator[Progress]:
    """Show a progress bar of that many steps while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("the loop", total=steps)
        yield progress


class Demo:
    """The loop on real flights, step by step, through Airflow's API."""

    def __init__(self, settings: Settings, airflow: Airflow, progress: Progress) -> None:
        self.settings, self.airflow, self.progress = settings, airflow, progress
        self.timings: list[demo_report.RunTiming] = []
        self.has_champion = False
        self.outcome_feed = self.make_outcome_feed()

    def run(self) -> None:
        """Train in winter, serve the spring, let the watch ask for a successor and roll it out. Raises Unavailable."""
        self.airflow.await_dags({f"{MODEL}.{dag_kind}" for dag_kind in ("data", "train", "rollout", "watch")})
        for dag_kind in ("data", "train", "rollout"):
            self.airflow.pause(f"{MODEL}.{dag_kind}", paused=False)
        self.announce("January to March: land and validate the first windows, build their features")
        self.land(*WINTER)
        self.announce("train the winter model; roll it out on April's flights")
        self.ship(self.airflow.trigger(f"{MODEL}.train", {}, "the first model"), SPRING[0])
        self.announce("April to June pass: flights are answered live, then land with their labels")
        self.serve_live(*SPRING)
        self.land(*SPRING)
        self.announce("the watch looks at what production shows")
        self.ship(self.run_watch(), SPRING[1])

    def run_spoiled(self) -> None:
        """Train a challenger on outcomes of other flights, and see it held back. Raises Unavailable when it is released."""
        inbox = self.settings.home / "inbox" / MODEL
        self.announce(
            f"a broken join deals out the outcomes before {CLEAN:%d %B} among the wrong flights; they are landed again"
        )
        flights.spoil(inbox, WINTER[0].date(), CLEAN.date())
        self.land(WINTER[0], SPRING[1])
        self.announce("somebody trains on them")
        if (
            self.follow("train", self.airflow.trigger(f"{MODEL}.train", {"cause": "the history was landed again"}))
            == "success"
        ):
            raise Unavailable("a challenger trained on wrong outcomes was released; look at its gates in Airflow")
        self.announce(f"rejected: {summary.reasons_not_released(MODEL, Parts(self.settings).ledger())}")
        self.announce("the source is mended, and the history landed once more")
        shutil.rmtree(inbox)
        self.land(WINTER[0], SPRING[1])

    def make_outcome_feed(self) -> OutcomeFeed:
        """Return the stream of delays, which reach the online store as flights land while others are asked about."""
        spec = find(MODEL, self.settings.models)
        outcomes = flights.outcomes(SPRING[0].date(), (SPRING[1] + MONTHS).date())
        return OutcomeFeed(Parts(self.settings).online(spec), outcomes, spec.features.aggregates, spec.columns.time)

    def land(self, start: datetime, end: datetime) -> None:
        """Deliver the span's flights and follow the data DAG over its windows. Raises Unavailable when it fails."""
        flights.deliver(self.settings.home / "inbox" / MODEL, start.date(), end.date())
        conf = {"start": start.isoformat(), "end": end.isoformat()}
        self.follow_to_success("data", self.airflow.trigger(f"{MODEL}.data", conf))

    def ship(self, training: str, today: datetime) -> None:
        """Follow a training to its end and, when it was released, its rollout under live traffic."""
        earlier_runs = {run["dag_run_id"] for run in self.airflow.runs(f"{MODEL}.rollout")}
        if self.follow("train", training) != "success":
            if not self.has_champion:
                raise Unavailable(
                    f"the first model was not released: {summary.reasons_not_released(MODEL, Parts(self.settings).ledger())}"
                )
            self.announce("the challenger was not released; its reasons are in the table below")
            return
        rows = flights.requests(today.date(), (today + MONTHS).date())
        with TrafficReplay(self.settings.gateway_url, rows, STEADY, KEY, self.outcome_feed):
            self.has_champion = (
                self.follow("rollout", self.await_run("rollout", earlier_runs)) == "success" or self.has_champion
            )

    def serve_live(self, start: datetime, end: datetime) -> None:
        """Send the span's flights through the gateway, as fast as two cores answer them."""
        started_at = time.monotonic()
        rows = flights.requests(start.date(), end.date())
        with TrafficReplay(self.settings.gateway_url, rows, FAST, KEY, self.outcome_feed) as replay:
            task = self.progress.add_task("flights answered live", total=None)
            while replay.running:
                self.progress.update(task, completed=replay.counts.sent)
                time.sleep(0.2)
            self.progress.remove_task(task)
        counts = replay.counts
        answered = ", ".join(f"{n:,} by {slot}" for slot, n in sorted(counts.by_slot.items()))
        failed = ", ".join(f"{n} × {code}" for code, n in counts.by_failed_status.items())
        self.print_step(
            "success",
            "replay",
            f"{counts.sent:,} requests: {answered}, {failed or 0} failed",
            time.monotonic() - started_at,
        )

    def run_watch(self) -> str:
        """Let the watch decide; return the id of the training run that its request started."""
        earlier_runs = {run["dag_run_id"] for run in self.airflow.runs(f"{MODEL}.train")}
        self.airflow.pause(f"{MODEL}.watch", paused=False)  # its schedule starts it at once
        self.follow_to_success("watch", self.await_run("watch", set()))
        self.announce(demo_report.last_decision(self.settings, MODEL))
        return self.await_run("train", earlier_runs)

    def follow_to_success(self, dag_kind: str, run: str) -> None:
        """Follow a run without which the story cannot go on. Raises Unavailable where to look when it fails."""
        if self.follow(dag_kind, run) != "success":
            page = f"{self.settings.airflow_url}/dags/{MODEL}.{dag_kind}/runs/{run}"
            raise Unavailable(f"{MODEL}.{dag_kind} failed; its log says why: {page}")

    def follow(self, dag_kind: str, run: str) -> str:
        """Print each task as it ends and answer the approval; return the run's final state."""
        dag, printed = f"{MODEL}.{dag_kind}", set[str]()
        for tasks in self.airflow.follow(dag, run):
            for task in tasks:
                # Airflow asks anew when an answer came too early all the same.
                if task.state == "awaiting_input" and f"attempt {task.attempt}" not in printed:
                    printed.add(f"attempt {task.attempt}")
                    self.announce(
                        "approval is asked of a person in the Airflow UI; here the demo answers Approve itself"
                    )
                    time.sleep(READING)
                    self.airflow.answer(dag, run, task.task, "Approve", "the demo approves by itself")
                if task.state in DONE and task.task not in printed:
                    printed.add(task.task)
                    self.print_step(task.state or "", dag, task.task, task.seconds)
        self.timings.append(self.timing(dag, run))
        return str(self.airflow.run(dag, run)["state"])

    def timing(self, dag: str, run: str) -> demo_report.RunTiming:
        """Return a finished run's seconds; waiting for a person counts neither as work nor as wall time."""
        dag_run, tasks = self.airflow.run(dag, run), self.airflow.tasks(dag, run)
        waited = sum(t.seconds for t in tasks if t.task == "approve")
        wall = (
            datetime.fromisoformat(dag_run["end_date"]) - datetime.fromisoformat(dag_run["start_date"])
        ).total_seconds()
        work = {t.task: t.seconds for t in tasks if t.state in ("success", "failed") and t.task != "approve"}
        return demo_report.RunTiming(dag, work, wall - waited)

    def await_run(self, dag_kind: str, earlier_runs: set[str], timeout: float = 60) -> str:
        """Return the id of a run that is not among the earlier ones, once there is one. Raises Unavailable at the time-out."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if new := [
                r["dag_run_id"] for r in self.airflow.runs(f"{MODEL}.{dag_kind}") if r["dag_run_id"] not in earlier_runs
            ]:
                return str(new[-1])
            time.sleep(0.3)
        raise Unavailable(f"{MODEL}.{dag_kind} was not started within {timeout:.0f} s; look at its page in Airflow")

    def announce(self, text: str) -> None:
        """Print what comes next."""
        self.progress.console.print(f"[bold]{text}")

    def print_step(self, state: str, where: str, what: str, seconds: float) -> None:
        """Print a finished step with its seconds, and advance the bar."""
        self.progress.console.print(
            f"  {MARKS.get(state, state)} [/]{where:<16} {what:<58} {seconds:7.1f} s", highlight=False
        )
        self.progress.advance(self.progress.task_ids[0])
