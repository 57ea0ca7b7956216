"""Router over the Gateway API: one HTTPRoute a model, believed only once its Gateway says that it took it.

The manifests say where the route hangs (`parentRefs`, `hostnames`), the rollout alone how it splits (`rules`): each is
applied by its own field manager, so that neither resets the other.
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
PORT = 80
#: Conditions that a Gateway must report for the route's present generation.
NEEDED = ("Accepted", "ResolvedRefs")
#: The feature that a Gateway class must say it has before requests are copied: one without it may accept the route and
#: then answer every request with an error (Traefik 3.7 does).
MIRRORING = "HTTPRouteRequestMirror"


@dataclass(frozen=True)
class Gateway:
    """`patience` is how many seconds the controller may take."""

    cluster: Cluster
    patience: float = 30.0

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once every Gateway of the route reports that it took it.

        Raises Unavailable, and UserMistake for a mirror that a Gateway's class does not say it has.
        """
        path, name = _path(model), name_of(model)
        route = self.cluster.get(path)  # one made here would hang on no Gateway
        if routes.mirror:
            self._check_mirroring(route)
        content = {
            "apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": name}, "spec": {"rules": rules(name, routes)}
        }  # fmt: skip
        self._await(path, self.cluster.apply(path, content))

    def current(self, model: str) -> Routes:
        """The split as last applied; all to stable when there was none."""
        *_, last = self.cluster.get(_path(model))["spec"].get("rules") or [{}]
        weights = {ref["name"]: ref.get("weight", 1) for ref in last.get("backendRefs", [])}
        mirror = any(kept["type"] == "RequestMirror" for kept in last.get("filters", []))
        return Routes(weights.get(f"{name_of(model)}-canary", 0), mirror)

    def _check_mirroring(self, route: Mapping[str, Any]) -> None:
        for parent in route["spec"].get("parentRefs", []):
            there = replace(self.cluster, namespace=parent.get("namespace", self.cluster.namespace))
            name = there.get(f"apis/{API}/namespaced/gateways/{parent['name']}")["spec"]["gatewayClassName"]
            if MIRRORING not in features(there.get(f"apis/{API}/gatewayclasses/{name}")):
                raise UserMistake(
                    f"rollout.shadow: Gateway class {name} does not say that it copies requests ({MIRRORING}): "
                    f"set it to 0, or use another controller"
                )

    def _await(self, path: str, route: dict[str, Any]) -> None:
        deadline = time.monotonic() + self.patience
        while reason := _refusal(route):
            if time.monotonic() > deadline:
                raise Unavailable(f"{path.rpartition('/')[2]}: after {self.patience:g} s {reason}")
            time.sleep(0.1)
            route = self.cluster.get(path)


def features(gateway_class: Mapping[str, Any]) -> set[str]:
    """What the class's controller says that it can."""
    return {str(feature["name"]) for feature in gateway_class.get("status", {}).get("supportedFeatures", [])}


def rules(name: str, routes: Routes) -> list[dict[str, Any]]:
    """The route's rules; as HAProxy's, a bucket below the canary's weight goes to the canary, so that no key moves back."""
    shares = {"stable": 100 - routes.canary, "canary": routes.canary}
    split: dict[str, Any] = {
        "matches": list(_matches()),
        "backendRefs": [_ref(name, *share) for share in shares.items()],
    }
    if routes.mirror:
        copies = {"backendRef": {"name": f"{name}-shadow", "port": PORT}}
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
    return {"name": f"{name}-{slot}", "port": PORT, "weight": weight}


def _refusal(route: Mapping[str, Any]) -> str | None:
    """Why the route's present generation is not served, None when it is."""
    generation = route["metadata"]["generation"]
    parents = route.get("status", {}).get("parents", [])
    if not parents:
        return "no Gateway took it: does its controller run, and is the route's parentRef right?"
    for parent in parents:
        told = {c["type"]: c for c in parent.get("conditions", []) if c.get("observedGeneration", 0) >= generation}
        for kind in NEEDED:
            if kind not in told:
                return f"Gateway {parent['parentRef']['name']} says nothing of generation {generation}"
            if told[kind]["status"] != "True":
                return f"Gateway {parent['parentRef']['name']} refuses it ({told[kind]['reason']}): {told[kind]['message']}"
    return None


def _path(model: str) -> str:
    return f"apis/{API}/namespaced/httproutes/{name_of(model)}"
