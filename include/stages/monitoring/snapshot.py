"""What the watch saw, kept as a record, so that deciding is a step of its own and can be repeated."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.monitoring.signal import Signal, SignalState
from include.stages.monitoring.monitoring import Look


def keep(look: Look, path: Path) -> Reference:
    """Write all of it but the drift of single features, which the reports show."""
    times = {name: at and at.isoformat() for name, at in (("as_of", look.as_of), ("trained", look.trained))}
    signals = [asdict(signal) for signal in look.signals]
    named = {"newest": look.newest, "version": look.version, "evidence": look.evidence}
    return store.write(path, {**times, **named, "signals": signals})


def kept(known: Reference) -> Look:
    """Raises Corrupt when the record is gone or was changed."""
    data = store.read(known, dict[str, Any])
    as_of, trained = (data[name] and datetime.fromisoformat(data[name]) for name in ("as_of", "trained"))
    signals = tuple(_signal(row) for row in data["signals"])
    return Look(as_of, data["newest"], data["version"], trained, signals, {}, data["evidence"])


def _signal(row: dict[str, object]) -> Signal:
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return Signal(**{**row, **lists, "state": SignalState(str(row["state"]))})  # type: ignore[arg-type]
