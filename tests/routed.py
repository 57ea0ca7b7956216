"""What the routers' contract tests run on: a router, and which slot answers the requests under its split.

For the routers of a cluster the API is the real one where KUBECONFIG names a cluster, and else a fake of it; the test plays
the controllers and the data plane, as the Gateway API and a Service define them.
"""

import os
import re
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from include.adapters.kubernetes import Absent, Cluster
from include.adapters.routers.gateway_api import MIRRORING, GatewayApiRouter
from include.adapters.routers.replicas import ReplicasRouter
from include.domain.errors import Unavailable
from include.ports.traffic import Router
from tests.gateway import local_gateway, until
from tests.kubernetes_api import FakeKubernetes, serving
from tests.kustomize import apply

ROUTE = "apis/gateway.networking.k8s.io/v1/namespaced/httproutes/flights"
DEPLOYMENT = "apis/apps/v1/namespaced/deployments/flights-{}"
GATEWAY_API = "gateway.networking.k8s.io/v1"
CLASS = f"apis/{GATEWAY_API}/gatewayclasses/{{}}"
SERVICE = "api/v1/namespaced/services/flights"
TRUE = ("Accepted", "ResolvedRefs")


class RoutedTraffic(Protocol):
    """Requests that a router splits."""

    @property
    def router(self) -> Router:
        """The router under test."""

    def ask(self, requests: int, /, **headers: str) -> Counter[str]:
        """Return how many of these requests each slot answers."""

    def copied(self) -> int:
        """Return how many requests were copied so far."""


@dataclass
class ClusterTraffic:
    """The objects that the manifests bring, and a controller that reports what it took of them."""

    cluster: Cluster
    fake: FakeKubernetes | None
    router: Router
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: by type, what differs from a good one
    controller_silent: bool = False
    pods_unready: bool = False
    copies: int = 0

    def report_features(self, *features: str) -> None:
        """Report the features of the Gateway's class, as its controller does."""
        status = {"supportedFeatures": [{"name": feature} for feature in features]}
        self.cluster.merge(f"{CLASS.format(self.cluster.namespace)}/status", {"status": status})

    def reconcile(self) -> None:
        """Report the state of every new generation, as the controllers do."""
        route = self._get(ROUTE)
        if route and not self.controller_silent:
            conditions = [self._condition(kind, route["metadata"]["generation"]) for kind in TRUE]
            parent = {
                "parentRef": {"name": "perennial"},
                "controllerName": "example.org/test",
                "conditions": conditions,
            }
            self.cluster.merge(f"{ROUTE}/status", {"status": {"parents": [parent]}})
        for slot in ("stable", "canary"):
            deployment = self._get(DEPLOYMENT.format(slot))
            if deployment:
                count = deployment["spec"].get("replicas", 1)
                status = {"replicas": count, "readyReplicas": 0 if self.pods_unready else count}
                self.cluster.merge(f"{DEPLOYMENT.format(slot)}/status", {"status": status})

    def ask(self, requests: int, /, **headers: str) -> Counter[str]:
        if isinstance(self.router, ReplicasRouter):
            backends = self.pods()
        else:
            rules = sorted(self.cluster.get(ROUTE)["spec"]["rules"], key=_precedence)
            rule = next(r for r in rules if _matches(r, headers))
            self.copies += requests * any(f["type"] == "RequestMirror" for f in rule.get("filters", []))
            backends = [r["name"].removeprefix("flights-") for r in rule["backendRefs"] for _ in range(r["weight"])]
        return Counter(backends[number % len(backends)] for number in range(requests))

    def copied(self) -> int:
        return self.copies

    def _condition(self, kind: str, generation: int) -> dict[str, Any]:
        good = {"status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        return {"type": kind, "observedGeneration": generation, **good, **self.conditions.get(kind, {})}

    def pods(self) -> list[str]:
        slot = self.cluster.get(SERVICE)["spec"]["selector"].get("perennial.dev/slot")
        ready = {
            s: self.cluster.get(DEPLOYMENT.format(s))["status"].get("readyReplicas", 0) for s in ("stable", "canary")
        }
        return [s for s, count in ready.items() for _ in range(count) if slot in (None, s)]

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            return self.cluster.get(path)
        except Absent:
            return None


def _precedence(rule: Mapping[str, Any]) -> int:
    """Return a sorting key: rules with more header matches come first, then the order of the list counts."""
    return -len(rule["matches"][0].get("headers", []))


def _matches(rule: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    required = rule["matches"][0].get("headers", [])
    return all(re.fullmatch(h["value"].strip("^$"), headers.get(h["name"], "")) for h in required)


@contextmanager
def on_haproxy(home: Path, _api: str) -> Iterator[RoutedTraffic]:
    """Route by a real HAProxy."""
    with local_gateway(home) as gateway:
        yield gateway


@contextmanager
def on_gateway(home: Path, api: str) -> Iterator[RoutedTraffic]:
    """Route by an HTTPRoute of the Gateway API."""
    route = {"parentRefs": [{"name": "perennial"}], "hostnames": ["flights.example.org"]}
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    manifests: list[Any] = [
        ("gatewayclasses", GATEWAY_API, "GatewayClass", "", {"controllerName": "example.org/test"}),
        ("gateways", GATEWAY_API, "Gateway", "perennial", {"listeners": [listener]}),
        ("httproutes", GATEWAY_API, "HTTPRoute", "flights", route),
    ]
    with _in_cluster(home, api, lambda cluster: GatewayApiRouter(cluster, patience=1.0), manifests) as traffic:
        traffic.report_features(MIRRORING)
        yield traffic


@contextmanager
def on_replicas(home: Path, api: str) -> Iterator[RoutedTraffic]:
    """Route by the numbers of pods behind a Service."""
    selector = {"perennial.dev/model": "flights", "perennial.dev/slot": "stable"}
    manifests: list[Any] = [("services", "v1", "Service", "flights", {"selector": selector, "ports": [{"port": 80}]})]
    for slot, count in (("stable", 9), ("canary", 1)):
        labels = {"perennial.dev/model": "flights", "perennial.dev/slot": slot}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "server"}]}}
        spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": pod}
        manifests.append(("deployments", "apps/v1", "Deployment", f"flights-{slot}", spec))
    with _in_cluster(home, api, lambda cluster: ReplicasRouter(cluster, patience=1.0), manifests) as traffic:
        yield traffic


@contextmanager
def _in_cluster(
    home: Path, api: str, router: Callable[[Cluster], Router], manifests: list[Any]
) -> Iterator[ClusterTraffic]:
    with ExitStack() as stack:
        cluster, fake = stack.enter_context(_fake(home) if api == "fake" else _real())
        traffic = ClusterTraffic(cluster, fake, router(cluster))
        for plural, version, kind, name, spec in manifests:
            if plural == "gateways":  # a class of its own, named after the namespace
                spec["gatewayClassName"] = cluster.namespace
            manifest = {
                "apiVersion": version,
                "kind": kind,
                "metadata": {"name": name or cluster.namespace},
                "spec": spec,
            }
            _create(cluster, fake, plural, manifest)
        stack.enter_context(_controller(traffic))
        until(
            lambda: (
                "status"
                in cluster.get(ROUTE if isinstance(traffic.router, GatewayApiRouter) else DEPLOYMENT.format("canary"))
            )
        )
        yield traffic


@contextmanager
def _fake(home: Path) -> Iterator[tuple[Cluster, FakeKubernetes]]:
    fake = FakeKubernetes()
    with serving(fake, home / "kubeconfig"):
        yield Cluster("perennial", str(home / "kubeconfig")), fake


@contextmanager
def _real() -> Iterator[tuple[Cluster, None]]:
    from kubernetes import client, config

    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("KUBECONFIG names no cluster")
    config.load_kube_config(kubeconfig)
    core = client.CoreV1Api()
    name = f"perennial-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    try:
        yield Cluster(name, kubeconfig), None
    finally:
        core.delete_namespace(name)
        with suppress(client.ApiException):  # there is none
            group, version = GATEWAY_API.split("/")
            client.CustomObjectsApi().delete_cluster_custom_object(group, version, "gatewayclasses", name)


def _create(cluster: Cluster, fake: FakeKubernetes | None, plural: str, manifest: dict[str, Any]) -> None:
    """By another field manager, as `kubectl apply` would."""
    if fake:
        fake.put(plural, manifest)
        return
    try:
        apply(cluster.kubeconfig, cluster.namespace, manifest)
    except subprocess.CalledProcessError as error:
        if "no matches for kind" not in error.stderr:
            raise
        pytest.skip(f"the cluster has no {manifest['kind']}")


@contextmanager
def _controller(traffic: ClusterTraffic) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.02):
            try:
                traffic.reconcile()
            except Unavailable:  # the API goes away when the test ends
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
