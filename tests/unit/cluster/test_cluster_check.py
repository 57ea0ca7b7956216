"""`perennial k8s check` says what a cluster lacks, what follows, and which overlay it takes."""

from pathlib import Path

from include.adapters.cluster_check import ClusterReport, check_cluster
from include.adapters.kubernetes import Cluster
from tests.kubernetes_api import FakeKubernetes, Object, serving

BARE: dict[str, Object] = {
    "/version": {"gitVersion": "v1.36.2"},
    "/apis/storage.k8s.io/v1/storageclasses": {"items": [{"metadata": {"name": "slow"}}]},
    "/api/v1/nodes": {"items": [{"metadata": {"name": "one"}, "status": {"allocatable": {"cpu": "2"}}}]},
}
ACCEPTED = {
    "conditions": [{"type": "Accepted", "status": "True"}],
    "supportedFeatures": [{"name": "HTTPRouteRequestMirror"}],
}
RICH: dict[str, Object] = {
    **BARE,
    "/apis/gateway.networking.k8s.io/v1": {},
    "/apis/monitoring.coreos.com/v1": {},
    "/apis/metrics.k8s.io/v1beta1": {},
    "/apis/gateway.networking.k8s.io/v1/gatewayclasses": {
        "items": [{"metadata": {"name": "envoy"}, "status": ACCEPTED}]
    },
    "/apis/storage.k8s.io/v1/storageclasses": {
        "items": [
            {"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
        ]
    },
    "/api/v1/nodes": {"items": [{"metadata": {"name": "one"}, "status": {"allocatable": {"nvidia.com/gpu": "4"}}}]},
}


def report(pages: dict[str, Object], folder: Path) -> ClusterReport:
    with serving(FakeKubernetes(pages=pages), folder / "kubeconfig"):
        return check_cluster(Cluster("perennial", str(folder / "kubeconfig")))


def test_a_bare_cluster_is_told_what_it_lacks_and_takes_plain(tmp_path: Path) -> None:
    bare = report(BARE, tmp_path)
    lacking = {part.name: part.without for part in bare.parts if not part.there}
    assert set(lacking) == {
        "Gateway API",
        "Gateway class",
        "request mirroring",
        "Prometheus operator",
        "metrics server",
        "custom metrics",
        "Spark operator",
        "default storage class",
        "GPU",
    }
    assert "PERENNIAL_ROUTER=replicas" in lacking["Gateway API"]
    assert bare.overlay == "plain"


def test_a_cluster_that_has_all_takes_gpu(tmp_path: Path) -> None:
    rich = report(RICH, tmp_path)
    there = {part.name: part.evidence for part in rich.parts if part.there}
    assert there["GPU"] == "4 nvidia.com/gpu on 1 nodes"
    assert there["request mirroring"] == "envoy"
    assert rich.overlay == "gpu"


def test_a_gateway_class_that_no_controller_accepted_is_none(tmp_path: Path) -> None:
    pages = {**RICH, "/apis/gateway.networking.k8s.io/v1/gatewayclasses": {"items": [{"metadata": {"name": "envoy"}}]}}
    assert report(pages, tmp_path).overlay == "plain"
