"""How far production has moved from what the model was trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Drift:
    """The `watch.drift` section of a spec."""

    __pydantic_config__ = {"extra": "forbid"}
    recent_windows: int = 7
    min_rows: int = 500
    effect: float = 0.1
    confidence: float = 0.99
