"""Whether to retrain, and why: signals in, a decision with its reason out."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Retraining:
    """The `watch` section's rules: which signals start a run and what holds one back."""

    __pydantic_config__ = {"extra": "forbid"}
    triggers: tuple[str, ...] = ("performance", "drift", "age")
    max_age: timedelta = timedelta(days=90)
    cool_down: timedelta = timedelta(days=7)
