"""What the stages of a rollout need from the world."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.serving import Slots
from include.ports.tables import Tables
from include.ports.traffic import Router, Signals
from include.spec.model_spec import ModelSpec
from include.stages.release.promotion import ReleaseServices


@dataclass(frozen=True)
class RolloutServices:
    """What a rollout acts on; `folder` holds the state files, and `tables` returns the tables of a model.

    An analysis and a rollback work while the registry and the slots do not answer.
    """

    folder: Path
    router: Router
    slots: Slots
    signals: Signals
    registry: Registry
    ledger: Ledger
    tables: Callable[[ModelSpec], Tables]

    @property
    def release(self) -> ReleaseServices:
        """What promoting a version acts on."""
        return ReleaseServices(self.registry, self.ledger)
