"""What happened to a model and how long it took, as tables on a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from include.domain.events import RetrainingDecided
from include.reports import summary
from include.reports.html import ReportTable
from include.settings import Settings
from include.wiring import Parts


@dataclass(frozen=True)
class RunTiming:
    """The seconds of one DAG run: those of its tasks, and those on the wall while it was not waiting for a person."""

    dag: str
    tasks: Mapping[str, float]
    wall: float

    @property
    def overhead(self) -> float:
        """The share of the wall time, in [0, 1], that was no task's own work."""
        return 1 - min(sum(self.tasks.values()), self.wall) / self.wall if self.wall else 0.0


def show(settings: Settings, model: str, timings: Sequence[RunTiming], console: Console) -> None:
    """Print tables of the versions on their test windows, the canaries, the decisions and the seconds."""
    for content in [*summary.tables(model, Parts(settings).ledger(), settings.runs), seconds(timings)]:
        table = Table(*content.heads, title=content.title)
        for row in content.rows:
            table.add_row(*row)
        console.print()
        console.print(table)


def seconds(timings: Sequence[RunTiming]) -> ReportTable:
    """Return a table of each run's tasks and of the time that the orchestration added around them."""
    rows = [
        (
            run.dag,
            ", ".join(f"{task} {spent:.1f}" for task, spent in run.tasks.items()),
            f"{run.wall:.0f} s",
            f"{run.overhead:.0%}",
        )
        for run in timings
    ]
    return ReportTable(("run", "seconds per step", "wall", "around the work"), rows, "Time")


def last_decision(settings: Settings, model: str) -> str:
    """Return the watch's newest decision as a sentence."""
    decision = Parts(settings).ledger().read(model, RetrainingDecided)[-1]
    return f"the watch says {'yes' if decision.start else 'no'}: {decision.sentence}"
