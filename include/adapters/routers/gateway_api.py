"""Router over the Gateway API: one HTTPRoute a model; a split counts once the Gateway reports that it has accepted it.

The manifests own to which Gateway the route belongs (`parentRefs`, `hostnames`), the rollout alone owns the split
(`rules`): each is applied by its own field manager, so that neither resets the other.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from include.adapters.kubernetes import Cluster, name_of
from include.adapters.routers.haproxy import BUCKET_HEADER, PATHS
from include.domain.errors import Unavailable, UserMistake
from include.ports.traffic import Routes

API = "gateway.networking.k8s.io/v1"
#: The port of the slots' Services.
SERVICE_PORT = 80
#: Conditions that a Gateway must report for the route's present generation.
REQUIRED_CONDITIONS = ("Accepted", "ResolvedRefs")
#: The feature that a Gateway class must report before requests are copied: one without it may accept the route and then
#: answer every request with an error (Traefik 3.7 does).
MIRRORING = "HTTPRouteRequestMirror"


@dataclass(frozen=True)
class GatewayApiRouter:
    """Implements `ports.traffic.Router` on HTTPRoutes, whose controller may take `patience` seconds to accept a change."""

    cluster: Cluster
    patience: float = 30.0

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once every Gateway of the route reports that it has accepted it.

        Raises Unavailable, and UserMistake for a mirror whose feature a Gateway's class does not report.
        """
        path, name = _path(model), name_of(model)
        route = self.cluster.get(path)  # one made here would belong to no Gateway
        if routes.mirror:
            self._check_mirroring(route)
        metadata, rules = {"name": name}, route_rules(name, routes)
        content = {"apiVersion": API, "kind": "HTTPRoute", "metadata": metadata, "spec": {"rules": rules}}
        self._await_accepted(path, self.cluster.apply(path, content))

    def current(self, model: str) -> Routes:
        """Return the split as last applied; all to stable when there was none."""
        *_, last_rule = self.cluster.get(_path(model))["spec"].get("rules") or [{}]
        weights = {ref["name"]: ref.get("weight", 1) for ref in last_rule.get("backendRefs", [])}
        mirror = any(rule_filter["type"] == "RequestMirror" for rule_filter in last_rule.get("filters", []))
        return Routes(weights.get(f"{name_of(model)}-canary", 0), mirror)

    def _check_mirroring(self, route: Mapping[str, Any]) -> None:
        for parent in route["spec"].get("parentRefs", []):
            cluster = replace(self.cluster, namespace=parent.get("namespace", self.cluster.namespace))
            name = cluster.get(f"apis/{API}/namespaced/gateways/{parent['name']}")["spec"]["gatewayClassName"]
            if MIRRORING not in supported_features(cluster.get(f"apis/{API}/gatewayclasses/{name}")):
                raise UserMistake(
                    f"rollout.shadow: Gateway class {name} does not say that it copies requests ({MIRRORING}): "
                    f"set it to 0, or use another controller"
                )

    def _await_accepted(self, path: str, route: dict[str, Any]) -> None:
        deadline = time.monotonic() + self.patience
        while reason := _refusal(route):
            if time.monotonic() > deadline:
                raise Unavailable(f"{path.rpartition('/')[2]}: after {self.patience:g} s {reason}")
            time.sleep(0.1)
            route = self.cluster.get(path)


def supported_features(gateway_class: Mapping[str, Any]) -> set[str]:
    """Return the features that the class's controller reports."""
    return {str(feature["name"]) for feature in gateway_class.get("status", {}).get("supportedFeatures", [])}


def route_rules(name: str, routes: Routes) -> list[dict[str, Any]]:
    """Return the rules of a route with this split.

    As with HAProxy, a bucket below the canary's weight goes to the canary, so that a growing weight moves no key back.
    """
    shares = {"stable": 100 - routes.canary, "canary": routes.canary}
    split: dict[str, Any] = {
        "matches": list(_matches()),
        "backendRefs": [_ref(name, *share) for share in shares.items()],
    }
    if routes.mirror:
        copies = {"backendRef": {"name": f"{name}-shadow", "port": SERVICE_PORT}}
        split["filters"] = [{"type": "RequestMirror", "requestMirror": copies}]
    if not 0 < routes.canary < 100:
        return [split]
    buckets = "|".join(f"{n:02d}" for n in range(routes.canary))
    return [
        {"matches": list(_matches(f"^({buckets})$")), "backendRefs": [_ref(name, "canary", 1)]},
        {"matches": list(_matches("^[0-9][0-9]$")), "backendRefs": [_ref(name, "stable", 1)]},
        split,
    ]


def _matches(bucket: str | None = None) -> Iterator[dict[str, Any]]:
    for path in PATHS:
        match: dict[str, Any] = {"path": {"type": "PathPrefix", "value": path}}
        if bucket:
            match["headers"] = [{"type": "RegularExpression", "name": BUCKET_HEADER, "value": bucket}]
        yield match


def _ref(name: str, slot: str, weight: int) -> dict[str, Any]:
    return {"name": f"{name}-{slot}", "port": SERVICE_PORT, "weight": weight}


def _refusal(route: Mapping[str, Any]) -> str | None:
    """Return why the route's present generation is not served, None when it is."""
    generation = route["metadata"]["generation"]
    parents = route.get("status", {}).get("parents", [])
    if not parents:
        return "no Gateway took it: does its controller run, and is the route's parentRef right?"
    for parent in parents:
        name = parent["parentRef"]["name"]
        current = {c["type"]: c for c in parent.get("conditions", []) if c.get("observedGeneration", 0) >= generation}
        for required in REQUIRED_CONDITIONS:
            condition = current.get(required)
            if condition is None:
                return f"Gateway {name} says nothing of generation {generation}"
            if condition["status"] != "True":
                return f"Gateway {name} refuses it ({condition['reason']}): {condition['message']}"
    return None


def _path(model: str) -> str:
    return f"apis/{API}/namespaced/httproutes/{name_of(model)}"
