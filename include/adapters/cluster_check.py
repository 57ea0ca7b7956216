"""What a cluster has of what the manifests need, and what follows where it lacks it. It only reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from include.adapters.kubernetes import Absent, Cluster
from include.adapters.routers.gateway_api import MIRRORING, supported_features

GPU = "nvidia.com/gpu"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
#: Without these, servers are reached by numbers of pods: the overlay `plain`.
ROUTED = {"Gateway API", "Gateway class", "Prometheus operator"}


@dataclass(frozen=True)
class ClusterPart:
    """One thing that the manifests use.

    `evidence` is what the cluster answered, `without` what does not work, or works otherwise, when it is not there.
    """

    name: str
    there: bool
    evidence: str
    without: str


@dataclass(frozen=True)
class ClusterReport:
    """All parts, and the richest overlay that such a cluster takes."""

    parts: tuple[ClusterPart, ...]

    @property
    def overlay(self) -> str:
        """The name of that overlay: `plain`, `cpu` or `gpu`."""
        there = {part.name for part in self.parts if part.there}
        if not there >= ROUTED:
            return "plain"
        return "gpu" if "GPU" in there else "cpu"


def check_cluster(cluster: Cluster) -> ClusterReport:
    """Ask the API for each part. Raises Unavailable when it does not answer."""
    version = cluster.get("version")
    return ClusterReport(
        (
            ClusterPart("API", True, str(version["gitVersion"]), ""),
            *_gateway(cluster),
            _api(cluster, "Prometheus operator", "monitoring.coreos.com/v1", "no ServiceMonitor: use overlay plain"),
            _api(cluster, "metrics server", "metrics.k8s.io/v1beta1", "servers are not scaled by CPU"),
            _api(cluster, "custom metrics", "custom.metrics.k8s.io/v1beta1", "servers are scaled by CPU alone"),
            _api(
                cluster,
                "Spark operator",
                "sparkoperator.k8s.io/v1beta2",
                "features are built where Airflow's tasks run",
            ),
            _storage(cluster),
            _gpus(cluster),
        )
    )


def _api(cluster: Cluster, name: str, group: str, without: str) -> ClusterPart:
    try:
        cluster.get(f"apis/{group}")
    except Absent:
        return ClusterPart(name, False, f"no {group}", without)
    return ClusterPart(name, True, group, "")


def _gateway(cluster: Cluster) -> Iterator[ClusterPart]:
    group = "gateway.networking.k8s.io/v1"
    api = _api(cluster, "Gateway API", group, "PERENNIAL_ROUTER=replicas: weights are numbers of pods")
    yield api
    classes = _items(cluster, f"apis/{group}/gatewayclasses") if api.there else []
    accepted = {c["metadata"]["name"]: supported_features(c) for c in classes if _accepted(c)}
    without = "no controller takes a route; install one, or PERENNIAL_ROUTER=replicas"
    yield ClusterPart("Gateway class", bool(accepted), ", ".join(accepted) or "none is accepted", without)
    mirroring = [name for name, supported in accepted.items() if MIRRORING in supported]
    without = "requests are not copied to a shadow: rollout.shadow must be 0"
    yield ClusterPart(
        "request mirroring", bool(mirroring), ", ".join(mirroring) or f"no class has {MIRRORING}", without
    )


def _accepted(resource: dict[str, Any]) -> bool:
    conditions = resource.get("status", {}).get("conditions", [])
    return any(c["type"] == "Accepted" and c["status"] == "True" for c in conditions)


def _storage(cluster: Cluster) -> ClusterPart:
    classes = _items(cluster, "apis/storage.k8s.io/v1/storageclasses")
    default = [
        c["metadata"]["name"] for c in classes if c["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
    ]
    without = "perennial-home stays pending: make one the default, or a volume for the claim"
    return ClusterPart("default storage class", bool(default), ", ".join(default) or "none is the default", without)


def _gpus(cluster: Cluster) -> ClusterPart:
    nodes = _items(cluster, "api/v1/nodes")
    count = sum(int(node.get("status", {}).get("allocatable", {}).get(GPU, 0)) for node in nodes)
    return ClusterPart(
        "GPU", count > 0, f"{count} {GPU} on {len(nodes)} nodes", "trainings run on CPUs: leave gpus at 0"
    )


def _items(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    return list(cluster.get(path).get("items") or [])
