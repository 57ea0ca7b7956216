"""What happened to a model and how long it took, as tables on a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from include.domain.events import RetrainingDecided
from include.reports import summary
from include.settings import Settings
from include.wiring import Parts


@dataclass(frozen=True)
class Timed:
    """One run as it went: its tasks' own seconds, and the seconds on the wall while it was not waiting for a person."""

    dag: str
    tasks: Mapping[str, float]
    wall: float

    @property
    def overhead(self) -> float:
        """The share of the wall time that was no task's own work."""
        return 1 - min(sum(self.tasks.values()), self.wall) / self.wall if self.wall else 0.0


def show(settings: Settings, model: str, timed: Sequence[Timed], console: Console) -> None:
    """The versions on their test windows, the canaries, the decisions, the seconds."""
    for known in [*summary.tables(model, Parts(settings).ledger(), settings.runs), seconds(timed)]:
        table = Table(*known.heads, title=known.title)
        for row in known.rows:
            table.add_row(*row)
        console.print()
        console.print(table)


def seconds(timed: Sequence[Timed]) -> summary.Table:
    """Each run's tasks, and how much time the orchestration added around them."""
    rows = [
        (
            run.dag,
            ", ".join(f"{task} {taken:.1f}" for task, taken in run.tasks.items()),
            f"{run.wall:.0f} s",
            f"{run.overhead:.0%}",
        )
        for run in timed
    ]
    return summary.Table("Time", ("run", "seconds per step", "wall", "around the work"), tuple(rows))


def last_decision(settings: Settings, model: str) -> str:
    """The watch's newest sentence."""
    decision = Parts(settings).ledger().read(model, RetrainingDecided)[-1]
    return f"the watch says {'yes' if decision.start else 'no'}: {decision.sentence}"
