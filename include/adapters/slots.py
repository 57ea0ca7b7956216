"""Slots over HTTP: a model server says at `/status` what it serves."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from include.domain.errors import Unavailable

#: Seconds between two looks at a slot.
EVERY = 0.2


@dataclass(frozen=True)
class HttpSlots:
    """`urls` are the base URLs of the model servers by slot."""

    urls: Mapping[str, str]

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once the slot is ready with that version. Raises Unavailable with what the slot says instead."""
        deadline = time.monotonic() + timeout
        with httpx.Client(base_url=self.urls[slot], timeout=2, trust_env=False) as client:
            while True:
                status = _status(client)
                if status.get("ready") and status.get("model") == model and status.get("version") == number:
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"slot {slot} at {self.urls[slot]} is not ready with version {number} of {model} "
                        f"after {timeout:g} s: {_said(status)}"
                    )
                time.sleep(EVERY)


def _status(client: httpx.Client) -> dict[str, Any]:
    """The slot's own words, or `reason` why there are none."""
    try:
        answer = client.get("/status")
    except httpx.TransportError as fault:
        return {"reason": f"it does not answer ({fault})"}
    return dict(answer.json()) if answer.is_success else {"reason": f"it answers {answer.status_code}"}


def _said(status: Mapping[str, Any]) -> str:
    reason = status.get("reason")
    if "version" not in status:
        return str(reason)
    serving = (
        f"it serves version {status['version']} of {status['model']}" if status["version"] else "it serves nothing"
    )
    return f"{serving}; {reason}" if reason else serving
