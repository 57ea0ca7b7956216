"""The protocol that every online store follows, and the JSON in which each of them keeps outcomes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from include.domain.features.online_features import EventOutcome, LandedSums


@dataclass(frozen=True)
class StoreChanges:
    """What was written after a reader's cursor, and the cursor from which that reader goes on.

    `landed` is None if no window landed in between; otherwise it holds all windows, and `outcomes` then holds all outcomes.
    `written_at` is the moment of the last write in epoch seconds, None before the first one.
    """

    cursor: tuple[int, int]
    landed: Sequence[LandedSums] | None
    outcomes: Sequence[EventOutcome]
    written_at: float | None


class OnlineStore(Protocol):
    """The online store of one model.

    Several threads and processes may call its methods at once. Every method raises Unavailable if the store does not answer.
    """

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        """Replace these windows and delete all that is older than `oldest`, in one transaction; return how many were replaced.

        A window older than `oldest`, or not newer than the stored version of itself, is skipped.
        """

    def add(self, outcomes: Sequence[EventOutcome]) -> int:
        """Append the outcomes whose key is not stored yet, and return how many these were."""

    def has_changed(self) -> bool:
        """Return whether something was written since this thread's last `read`, as far as that can be told without waiting."""

    def read(self, cursor: tuple[int, int] | None) -> StoreChanges:
        """Return what was written after `cursor`, or the whole content for None."""


def encode_outcome(outcome: EventOutcome) -> str:
    """Return the outcome as the JSON object that stores keep; its keys stay when a field is renamed."""
    stored = {
        "key": outcome.key,
        "window": outcome.window,
        "known": outcome.known_at,
        "columns": outcome.columns,
        "values": outcome.values,
    }
    return json.dumps(stored, separators=(",", ":"), allow_nan=False)


def decode_outcome(text: str | bytes) -> EventOutcome:
    """Return the outcome that `encode_outcome` wrote."""
    stored = json.loads(text)
    return EventOutcome(stored["key"], stored["window"], stored["known"], stored["columns"], stored["values"])
