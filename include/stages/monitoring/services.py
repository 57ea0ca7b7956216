"""What the stages of monitoring need from the world, in one object."""

from dataclasses import dataclass

from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.tables import Tables
from include.ports.traffic import Signals


@dataclass(frozen=True)
class MonitoringServices:
    """One model's tables, what its live traffic shows, the registry of its versions, and the ledger of decisions."""

    tables: Tables
    signals: Signals
    registry: Registry
    ledger: Ledger
