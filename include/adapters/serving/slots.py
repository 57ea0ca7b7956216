"""Slots over HTTP: a model server reports at `/status` what it serves."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from include.adapters.serving import addresses
from include.domain.errors import Unavailable

#: Seconds between two requests for a slot's status.
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class HttpSlots:
    """Implements `ports.serving.Slots`; `urls` are the base URLs of each slot, behind each of which may be several servers."""

    urls: Mapping[str, Sequence[str]]

    def await_version(self, slot: str, model: str, number: str, timeout: float) -> None:
        """Return once each of the slot's servers is ready with that version. Raises Unavailable with what one says instead."""
        deadline = time.monotonic() + timeout
        while unready := self._unready(slot, model, number):
            if time.monotonic() > deadline:
                url, reason = unready
                raise Unavailable(
                    f"slot {slot} at {url} is not ready with version {number} of {model} after {timeout:g} s: {reason}"
                )
            time.sleep(POLL_SECONDS)

    def _unready(self, slot: str, model: str, number: str) -> tuple[str, str] | None:
        """Return the first server that is not ready with that version, and what it says instead."""
        try:
            urls = [url for name in self.urls[slot] for url in addresses.resolve(name, model)]
        except Unavailable as error:
            return ", ".join(self.urls[slot]), str(error)
        for url in urls:
            with httpx.Client(base_url=url, timeout=2, trust_env=False) as client:
                status = _status(client)
            if not (status.get("ready") and status.get("model") == model and status.get("version") == number):
                return url, _description(status)
        return None


def _status(client: httpx.Client) -> dict[str, Any]:
    """Return what `/status` answers, or a `reason` why there is no answer."""
    try:
        answer = client.get("/status")
    except httpx.TransportError as error:
        return {"reason": f"it does not answer ({error})"}
    return dict(answer.json()) if answer.is_success else {"reason": f"it answers {answer.status_code}"}


def _description(status: Mapping[str, Any]) -> str:
    reason = status.get("reason")
    if "version" not in status:
        return str(reason)
    serving = (
        f"it serves version {status['version']} of {status['model']}" if status["version"] else "it serves nothing"
    )
    return f"{serving}; {reason}" if reason else serving
