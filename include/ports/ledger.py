"""The append-only record of decisions."""

from typing import Any, Protocol


class Ledger(Protocol):
    """Append-only record of decisions."""

    def append(self, model: str, kind: str, **facts: Any) -> None: ...

    def read(self, model: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Oldest first; each with `at` (ISO, UTC), `kind` and its facts."""
