"""Slots over HTTP: a model server says at `/status` what it serves."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from include.adapters.serving import addresses
from include.domain.errors import Unavailable

#: Seconds between two looks at a slot.
EVERY = 0.2


@dataclass(frozen=True)
class HttpSlots:
    """`urls` are the base URLs of each slot; behind one there may be several servers."""

    urls: Mapping[str, Sequence[str]]

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once each of the slot's servers is ready with that version. Raises Unavailable with what one says instead."""
        deadline = time.monotonic() + timeout
        while other := self._other(slot, model, number):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"slot {slot} at {other[0]} is not ready with version {number} of {model} after {timeout:g} s: {other[1]}"
                )
            time.sleep(EVERY)

    def _other(self, slot: str, model: str, number: str) -> tuple[str, str] | None:
        """The first server that is not ready with that version, and what it says instead."""
        try:
            urls = [url for name in self.urls[slot] for url in addresses.each(name, model)]
        except Unavailable as fault:
            return ", ".join(self.urls[slot]), str(fault)
        for url in urls:
            with httpx.Client(base_url=url, timeout=2, trust_env=False) as client:
                status = _status(client)
            if not (status.get("ready") and status.get("model") == model and status.get("version") == number):
                return url, _said(status)
        return None


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
