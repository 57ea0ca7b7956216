"""What a cluster has of what the manifests need, and what follows where it has it not. It only reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from include.adapters.kubernetes import Absent, Cluster
from include.adapters.routers.gateway_api import MIRRORING, features

GPU = "nvidia.com/gpu"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Part:
    """`said` is what was found; `without` is what does not work, or works otherwise, when it is not there."""

    name: str
    there: bool
    said: str
    without: str


def look(cluster: Cluster) -> list[Part]:
    """Raises Unavailable when the API does not answer."""
    version = cluster.get("version")
    return [
        Part("API", True, str(version["gitVersion"]), ""),
        *_gateway(cluster),
        _api(cluster, "Prometheus operator", "monitoring.coreos.com/v1", "no ServiceMonitor: use overlay plain"),
        _api(cluster, "metrics server", "metrics.k8s.io/v1beta1", "servers are not scaled by CPU"),
        _api(cluster, "custom metrics", "custom.metrics.k8s.io/v1beta1", "servers are scaled by CPU alone"),
        _api(cluster, "Spark operator", "sparkoperator.k8s.io/v1beta2", "features are built where Airflow's tasks run"),
        _storage(cluster),
        _gpus(cluster),
    ]


def overlay(found: Sequence[Part]) -> str:
    """The richest of the overlays that this cluster takes."""
    there = {part.name for part in found if part.there}
    if not {"Gateway API", "Gateway class", "Prometheus operator"} <= there:
        return "plain"
    return "gpu" if "GPU" in there else "cpu"


def _api(cluster: Cluster, name: str, group: str, without: str) -> Part:
    try:
        cluster.get(f"apis/{group}")
    except Absent:
        return Part(name, False, f"no {group}", without)
    return Part(name, True, group, "")


def _gateway(cluster: Cluster) -> Iterator[Part]:
    group = "gateway.networking.k8s.io/v1"
    api = _api(cluster, "Gateway API", group, "PERENNIAL_ROUTER=replicas: weights are numbers of pods")
    yield api
    classes = _items(cluster, f"apis/{group}/gatewayclasses") if api.there else []
    taken = {c["metadata"]["name"]: features(c) for c in classes if _accepted(c)}
    without = "no controller takes a route; install one, or PERENNIAL_ROUTER=replicas"
    yield Part("Gateway class", bool(taken), ", ".join(taken) or "none is accepted", without)
    copying = [name for name, known in taken.items() if MIRRORING in known]
    without = "requests are not copied to a shadow: rollout.shadow must be 0"
    yield Part("request mirroring", bool(copying), ", ".join(copying) or f"no class has {MIRRORING}", without)


def _accepted(thing: dict[str, Any]) -> bool:
    conditions = thing.get("status", {}).get("conditions", [])
    return any(c["type"] == "Accepted" and c["status"] == "True" for c in conditions)


def _storage(cluster: Cluster) -> Part:
    classes = _items(cluster, "apis/storage.k8s.io/v1/storageclasses")
    default = [
        c["metadata"]["name"] for c in classes if c["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
    ]
    without = "perennial-home stays pending: make one the default, or a volume for the claim"
    return Part("default storage class", bool(default), ", ".join(default) or "none is the default", without)


def _gpus(cluster: Cluster) -> Part:
    nodes = _items(cluster, "api/v1/nodes")
    count = sum(int(node.get("status", {}).get("allocatable", {}).get(GPU, 0)) for node in nodes)
    return Part("GPU", count > 0, f"{count} {GPU} on {len(nodes)} nodes", "trainings run on CPUs: leave gpus at 0")


def _items(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    return list(cluster.get(path).get("items") or [])
