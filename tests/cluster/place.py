"""A namespace of its own on a real cluster, with a home volume on one node, in which tests start Perennial's pods."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from include.adapters.kubernetes import Cluster
from include.adapters.training import pods as training_pods
from include.settings import ROOT, Settings, from_env
from include.spec.model_spec import ModelSpec
from tests.kustomize import apply, render
from tests.unit.toy import toy

HOME = Path("/var/lib/perennial")
PATIENCE = 600.0


@dataclass(frozen=True)
class Place:
    kubeconfig: str
    settings: Settings
    node: str

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    @property
    def cluster(self) -> Cluster:
        """The cluster with the rights of Airflow's account."""
        return Cluster(self.namespace, self.settings.kubeconfig)

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api()

    def spec(self, **kubernetes: Any) -> ModelSpec:
        small = {
            "cpu": "100m",
            "memory": "2Gi",
            "shared_memory": "256Mi",
            "grace": "PT1M",
            "node_selector": {"kubernetes.io/hostname": self.node},
        }
        return toy(training={"timeout": "PT20M", "kubernetes": {**small, **kubernetes}})

    def create(self, manifest: Mapping[str, Any]) -> None:
        apply(self.kubeconfig, self.namespace, manifest)

    def restrict(self) -> None:
        """Label the namespace as that of the manifests, so that a pod which Pod Security does not let pass is refused."""
        (namespace,) = (each for each in render(ROOT / "include/manifests/base") if each["kind"] == "Namespace")
        self.core.patch_namespace(self.namespace, {"metadata": {"labels": namespace["metadata"]["labels"]}})

    def pods(self, selector: str) -> list[client.V1Pod]:
        """Return the pods with these labels, oldest first."""
        pods = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)

    def log(self, pod: str) -> str:
        try:
            # The raw answer: the client would parse a line of JSON.
            answer = self.core.read_namespaced_pod_log(pod, self.namespace, _preload_content=False)
            return str(answer.data.decode())
        except client.ApiException:  # not started yet
            return ""

    def phase(self, pod: str) -> str | None:
        try:
            return str(self.core.read_namespaced_pod_status(pod, self.namespace).status.phase)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def run(self, name: str, code: str, *, user: int, files: Mapping[str, str] | None = None) -> str:
        """Run a program in the trainer's image with the home volume, and return what it prints."""
        content = training_pods.TrainingManifests(self.settings).pod(self.spec(), [], name)
        content["metadata"]["name"] = name
        (container,) = content["spec"]["containers"]
        container["command"] = ["python", "-c", code]
        content["spec"]["securityContext"] |= {"runAsUser": user, "runAsNonRoot": user != 0}
        if files:
            self.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {**files}})
            content["spec"]["volumes"].append({"name": "files", "configMap": {"name": name}})
            container["volumeMounts"].append({"name": "files", "mountPath": "/files"})
        if user == 0:  # it opens the volume to all
            container["securityContext"]["capabilities"] = {}
        self.create(content)
        until(lambda: self.phase(name) in ("Succeeded", "Failed"))
        log = self.log(name)
        assert self.phase(name) == "Succeeded", log
        return log


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited for {PATIENCE:g} s in vain"
        time.sleep(0.5)


@contextmanager
def somewhere(folder: Path) -> Iterator[Place]:
    """Yield a new namespace, and remove it; the kubeconfig of its account for Airflow lies in `folder`."""
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if not (kubeconfig and os.environ.get("PERENNIAL_TRAINER_IMAGE")):
        pytest.skip("KUBECONFIG names no cluster, or PERENNIAL_TRAINER_IMAGE no image")
    config.load_kube_config(kubeconfig)
    core, name = client.CoreV1Api(), f"perennial-test-{uuid.uuid4().hex[:8]}"
    node = next(n for n in core.list_node().items if not n.spec.unschedulable)
    settings = replace(from_env(), home=HOME, storage="", namespace=name, kubeconfig=str(folder / "airflow"))
    place = Place(kubeconfig, settings, node.metadata.labels["kubernetes.io/hostname"])
    core.create_namespace({"metadata": {"name": name}})
    try:
        _furnish(place)
        _write_kubeconfig(place)
        yield place
    finally:
        core.delete_namespace(name)
        core.delete_persistent_volume(name)


def _furnish(place: Place) -> None:
    """Create a volume on the node, and from the manifests accounts, their rights and the Service of training pods."""
    size, classless = {"storage": "1Gi"}, {"storageClassName": "", "accessModes": ["ReadWriteMany"]}
    volume = {
        "hostPath": {"path": f"/tmp/{place.namespace}", "type": "DirectoryOrCreate"},
        "capacity": size,
        **classless,
    }
    claim = {"volumeName": place.namespace, "resources": {"requests": size}, **classless}
    for kind, name, spec in (
        ("PersistentVolume", place.namespace, volume),
        ("PersistentVolumeClaim", training_pods.HOME_CLAIM, claim),
    ):
        place.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    for manifest in render(ROOT / "include/manifests/base"):
        if manifest["kind"] in ("ServiceAccount", "Role", "RoleBinding", "Service"):
            for subject in manifest.get("subjects", []):
                subject["namespace"] = place.namespace
            place.create(manifest)


def _write_kubeconfig(place: Place) -> None:
    """Write a kubeconfig with what Airflow's pods would have: the token of their account."""
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    answer = place.core.create_namespaced_service_account_token("perennial-airflow", place.namespace, request)
    kubeconfig = yaml.safe_load(Path(place.kubeconfig).read_text())
    for user in kubeconfig["users"]:
        user["user"] = {"token": answer.status.token}
    Path(place.settings.kubeconfig).write_text(yaml.safe_dump(kubeconfig))
