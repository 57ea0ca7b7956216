"""Router over Traefik's file provider: one file a model, replaced atomically, and believed only once Traefik serves it.

The files are JSON, which is YAML too. A request may carry a bucket header (00–99, any stable hash of its key): buckets
below the canary's weight go to the canary, so a key stays with one model and a growing weight moves no key back.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from include.domain.errors import Unavailable
from include.ports import Routes
from include.settings import SLOTS, Settings

BUCKET_HEADER = "X-Perennial-Bucket"
PATHS = ("/predict", "/v2", "/feedback")
#: Seconds of Traefik's service latency buckets; they hold the bounds a guard on slow answers may name.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0)
#: A request is kept whole to be sent again. Under a limit Traefik takes that much memory anew for each request, which costs
#: more than all else it does; the model servers refuse large bodies.
UNLIMITED = -1
#: A slot that answers no longer is out of the split after at most interval + timeout. A dead one refuses at once; only a
#: silent one uses up the timeout. Stable is given longer, because without it nobody answers.
HEALTH_CHECK = {"path": "/v2/health/ready", "interval": "250ms", "unhealthyInterval": "250ms"}
CHECK_TIMEOUT = {"stable": "5s", "canary": "500ms"}


def lay_out(settings: Settings) -> Path:
    """Write Traefik's static file and the first routes, all to stable; `traefik --configFile=<path>` starts on it.

    Routes that are already there stay: a gateway that comes back goes on with the split it had.
    """
    folder = settings.gateway / "dynamic"
    folder.mkdir(parents=True, exist_ok=True)
    paths = "PathPrefix(`/api`) || PathPrefix(`/dashboard`)"
    admin = {"rule": paths, "service": "api@internal", "entryPoints": ["admin"]}
    _replace(folder / "admin.yml", {"http": {"routers": {"admin": admin}}})
    gateway = for_settings(settings)
    _replace(gateway.file(settings.model), dynamic(settings.model, gateway.slots, gateway.current(settings.model)))
    path = settings.gateway / "traefik.yml"
    _replace(path, _static(folder, settings.host, settings.gateway_port, settings.gateway_admin_port))
    return path


def for_settings(settings: Settings) -> "Traefik":
    """The router of the embedded stack."""
    slots = {slot: settings.slot_urls(slot) for slot in SLOTS}
    return Traefik(settings.gateway, settings.gateway_admin_url, slots)


def _static(folder: Path, host: str, port: int, admin_port: int) -> dict[str, Any]:
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"live": {"address": f"{host}:{port}"}, "admin": {"address": f"{host}:{admin_port}"}},
        "providers": {"providersThrottleDuration": "50ms", "file": {"directory": str(folder), "watch": True}},
        # Its HTTP/1.1 proxy of its own takes a fifth less time for a request than Go's.
        "experimental": {"fastProxy": {"debug": False}},
        "api": {"dashboard": True},
        "ping": {"entryPoint": "admin"},
        "metrics": {
            "prometheus": {
                "entryPoint": "admin", "addServicesLabels": True, "addEntryPointsLabels": False,
                "buckets": list(LATENCY_BUCKETS),
            }
        },
        # An idle canary slot is never ready; its failing health check would fill the log with warnings.
        "log": {"level": "ERROR"},
    }  # fmt: skip


@dataclass(frozen=True)
class Traefik:
    """`folder` holds `dynamic/`; `slots` are the base URLs of the servers of `stable` and `canary`; `patience` is in seconds."""

    folder: Path
    admin_url: str
    slots: Mapping[str, Sequence[str]]
    patience: float = 10.0

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once Traefik serves it.

        The file is written first, so Traefik takes it up by itself should it be down now. Raises Unavailable.
        """
        wanted = dynamic(model, self.slots, routes)
        _replace(self.file(model), wanted)
        self._await(model, wanted["http"])

    def current(self, model: str) -> Routes:
        """The split as last applied; all to stable when there was none."""
        try:
            http = json.loads(self.file(model).read_text(encoding="utf-8"))["http"]
        except FileNotFoundError:
            return Routes()
        return routes_of(model, http)

    def file(self, model: str) -> Path:
        return self.folder / "dynamic" / f"{model}.yml"

    def _await(self, model: str, wanted: Mapping[str, Any]) -> None:
        split = f"{model}-split"
        deadline = time.monotonic() + self.patience
        with httpx.Client(base_url=f"{self.admin_url}/api/http", timeout=2, trust_env=False) as api:
            while True:
                router, service = _get(api, f"/routers/{model}@file"), _get(api, f"/services/{split}@file")
                served = (
                    service.get("weighted", {}).get("services") == wanted["services"][split]["weighted"]["services"]
                )
                if served and router.get("service") == wanted["routers"][model]["service"]:
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"the gateway at {self.admin_url} does not serve {self.file(model)} after {self.patience:g} s: "
                        f"{router.get('fault') or router.get('error') or 'it shows another split'}"
                    )
                time.sleep(0.02)


def routes_of(model: str, http: Mapping[str, Any]) -> Routes:
    """The split that a configuration means, from its file or as Traefik's API tells it."""
    shares = http["services"][f"{model}-split"]["weighted"]["services"]
    canary = sum(share["weight"] for share in shares if share["name"].startswith(f"{model}-canary"))
    return Routes(canary, mirror=http["routers"][model]["service"] == f"{model}-mirror")


def dynamic(model: str, slots: Mapping[str, Sequence[str]], routes: Routes) -> dict[str, Any]:
    """Traefik's dynamic configuration for these routes.

    While the canary has a share, each slot stands in for the other: a caller gets an answer though one slot has none,
    and the failed try counts under the slot that failed.
    """
    stable, canary, split = (f"{model}-{name}" for name in ("stable", "canary", "split"))
    arms = (f"{stable}-first", f"{canary}-first") if routes.canary else (stable, canary)
    weights = ((arms[0], 100 - routes.canary), (arms[1], routes.canary))
    # One without a share must not be named: while it alone is healthy, Traefik would look for its turn for ever.
    shares = [{"name": arm, "weight": weight} for arm, weight in weights if weight]
    services: dict[str, Any] = {
        **{f"{model}-{slot}": {"loadBalancer": _servers(slot, urls)} for slot, urls in slots.items()},
        # Without the check a dead slot keeps its share.
        split: {"weighted": {"services": shares, "healthCheck": {}}},
    }
    if routes.canary:
        services |= {arms[0]: _first(stable, canary), arms[1]: _first(canary, stable)}
    paths = " || ".join(f"PathPrefix(`{p}`)" for p in PATHS)
    routers = {model: _router(model, paths, split, priority=1)}
    if 0 < routes.canary < 100:
        routers |= _bucket_routers(model, paths, routes.canary)
    if routes.mirror:
        mirrors = [{"name": canary, "percent": 100}]
        services[f"{model}-mirror"] = {"mirroring": {"service": split, "mirrors": mirrors, "healthCheck": {}}}
        routers[model]["service"] = f"{model}-mirror"
    # A prediction changes nothing, so POST may be sent again when a connection broke.
    retry = {"retry": {"attempts": 3, "initialInterval": "10ms", "retryNonIdempotentMethod": True}}
    return {"http": {"routers": routers, "services": services, "middlewares": {f"{model}-retry": retry}}}


def _first(slot: str, other: str) -> dict[str, Any]:
    """That slot; the other one while it is not healthy, and for each request that it fails."""
    errors = {"status": ["500-599"], "maxRequestBodyBytes": UNLIMITED}
    return {"failover": {"service": slot, "fallback": other, "healthCheck": {}, "errors": errors}}


def _bucket_routers(model: str, paths: str, weight: int) -> dict[str, Any]:
    buckets = "|".join(f"{n:02d}" for n in range(weight))
    rule = f"({paths}) && HeaderRegexp(`{BUCKET_HEADER}`, `^({{}})$`)"
    return {
        f"{model}-canary-keys": _router(model, rule.format(buckets), f"{model}-canary-first", priority=3),
        f"{model}-stable-keys": _router(model, rule.format("[0-9][0-9]"), f"{model}-stable-first", priority=2),
    }


def _router(model: str, rule: str, service: str, priority: int) -> dict[str, Any]:
    return {
        "rule": rule, "service": service, "priority": priority,
        "entryPoints": ["live"], "middlewares": [f"{model}-retry"],
    }  # fmt: skip


def _servers(slot: str, urls: Sequence[str]) -> dict[str, Any]:
    return {"servers": [{"url": url} for url in urls], "healthCheck": {**HEALTH_CHECK, "timeout": CHECK_TIMEOUT[slot]}}


def _get(api: httpx.Client, path: str) -> dict[str, Any]:
    """The API's answer, or `fault` with the reason why there is none."""
    try:
        answer = api.get(path)
    except httpx.TransportError as fault:
        return {"fault": f"it does not answer ({fault})"}
    return dict(answer.json()) if answer.is_success else {"fault": f"it answers {answer.status_code} on {path}"}


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    # The watcher reads every .yml of the folder, so the half-written file must not be called that.
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
    draft.replace(path)
