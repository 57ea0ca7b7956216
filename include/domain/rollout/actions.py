"""What a person can ask of a model's traffic."""

from dataclasses import dataclass
from enum import StrEnum


class RolloutAction(StrEnum):
    """An action on a model's traffic; the values are what the pages and `<model>.steer` offer."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "roll back"
    RESTORE = "restore the previous champion"

    @property
    def needs_running_rollout(self) -> bool:
        """Whether the action is on a rollout that runs; the others need none."""
        return self not in (RolloutAction.ROLL_BACK, RolloutAction.RESTORE)


@dataclass(frozen=True)
class PendingAction:
    """An action that waits for the next analysis of a running rollout, and who asked for it and why."""

    action: RolloutAction
    by: str
