"""The append-only record of what happened to each model."""

from typing import Protocol, TypeVar

from include.domain.events import Event

E = TypeVar("E", bound=Event)


class Ledger(Protocol):
    """Append-only record of events, for any number of processes."""

    def append(self, model: str, event: Event) -> None:
        """Write the event and return once it is stored. Raises OSError when it cannot be written."""

    def read(self, model: str, event_type: type[E]) -> list[E]:
        """Return the model's events of that class, oldest first."""

    def read_all(self, model: str) -> list[Event]:
        """Return the model's events of every class, oldest first."""
