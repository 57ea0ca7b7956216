"""Outcomes as JSON."""

import json
from dataclasses import asdict

from include.domain.features.online_features import Outcome


def encode(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), separators=(",", ":"), allow_nan=False)


def decode(text: str | bytes) -> Outcome:
    return Outcome(**json.loads(text))
