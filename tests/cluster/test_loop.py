"""Training and rollout on whatever cluster KUBECONFIG names, on CPU: `make test-k8s`.

PERENNIAL_TRAINER_IMAGE and PERENNIAL_SERVER_IMAGE name the images, PERENNIAL_PULL_POLICY may be Never.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from include.adapters.cluster_check import check_cluster
from include.adapters.kubernetes import USER, Cluster
from include.adapters.routers.gateway_api import GatewayApiRouter
from include.adapters.routers.haproxy import BUCKET_HEADER
from include.adapters.routers.replicas import ReplicasRouter
from include.adapters.training.pods import TrainingManifests
from include.domain.training.pods import TRAINING_LABEL
from include.ports.traffic import Routes
from include.settings import ROOT
from tests.cluster.place import HOME, Place, somewhere, until
from tests.kustomize import render
from tests.routed import DEPLOYMENT

pytestmark = pytest.mark.cluster

#: A training long enough to be stopped in its midst.
LONG = {"epochs": 200, "checkpoint_steps": 50}
SEED = """
import pathlib, sys
sys.path.insert(0, "/files")
from small_dataset import write_dataset, write_job
home = pathlib.Path("{home}")
dataset = write_dataset(home / "runs" / "dataset")
for name in ("spot", "nodes"):
    write_job(dataset, home / "runs" / name, **{long})
write_job(dataset, home / "runs" / "model")
for path in (home, *home.rglob("*")):
    path.chmod(0o777)
"""
SLOTS = {"stable", "canary"}
#: A program that counts who answers a pod's requests: a slot, or the code of an error.
ASK = """
import collections, json, urllib.error, urllib.request
rows = json.dumps({{"shop": "a", "part": "b", "price": 1.0, "age": 2.0, "at": "2013-01-22T00:00:00Z"}}).encode()
def slot():
    request = urllib.request.Request("http://{host}/predict", rows, {headers})
    try:
        return json.load(urllib.request.urlopen(request, timeout=10))["slot"]
    except urllib.error.HTTPError as error:
        return str(error.code)
print(json.dumps(collections.Counter(slot() for _ in range({times}))))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with somewhere(tmp_path_factory.mktemp("accounts")) as place:
        files = {"small_dataset.py": (ROOT / "tests" / "small_dataset.py").read_text()}
        place.run("seed", SEED.format(home=HOME, long=LONG), user=0, files=files)
        place.restrict()
        yield place


def job_file(name: str) -> Path:
    return HOME / "runs" / name / "job.json"


def begin(place: Place, name: str, try_: int) -> str:
    content = TrainingManifests(place.settings).pod(place.spec(), [job_file(name)], name)
    content["metadata"]["name"] += f"-{name}-{try_}"
    place.create(content)
    return str(content["metadata"]["name"])


def test_a_pod_that_is_removed_is_followed_by_one_that_goes_on(place: Place) -> None:
    first = begin(place, "spot", 1)
    until(lambda: "step " in place.log(first))
    place.core.delete_namespaced_pod(first, place.namespace)
    until(lambda: place.phase(first) is None)
    second = begin(place, "spot", 2)
    until(lambda: place.phase(second) in ("Succeeded", "Failed"))
    assert place.phase(second) == "Succeeded", place.log(second)
    assert "going on after step" in place.log(second)


def test_two_nodes_train_and_outlive_the_loss_of_one(place: Place) -> None:
    content = TrainingManifests(place.settings).job(place.spec(nodes=2), [job_file("nodes")], "nodes")
    content["metadata"]["name"] += "-nodes"
    place.create(content)

    def node(index: int) -> list[client.V1Pod]:
        return place.pods(f"{TRAINING_LABEL}=nodes,batch.kubernetes.io/job-completion-index={index}")

    until(lambda: node(0) and "step " in place.log(node(0)[0].metadata.name))
    place.core.delete_namespaced_pod(node(1)[-1].metadata.name, place.namespace)
    batch = client.BatchV1Api()

    def ended() -> set[str]:
        status = batch.read_namespaced_job_status(content["metadata"]["name"], place.namespace).status
        return {c.type for c in status.conditions or [] if c.status == "True"} & {"Complete", "Failed"}

    until(ended)
    last = node(0)[-1].metadata.name
    assert ended() == {"Complete"}, place.log(last)
    assert "going on after step" in place.log(last)


def servers(place: Place) -> list[dict[str, Any]]:
    """Return the manifests' Deployments and Services, made small; each slot serves one artifact without a registry."""
    objects = render(ROOT / "include/manifests/overlays/plain")
    servers = [each for each in objects if each["metadata"]["name"].startswith("flights")]
    servers = [each for each in servers if each["kind"] in ("Deployment", "Service")]
    for each in servers:
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            pod["nodeSelector"] = {"kubernetes.io/hostname": place.node}
            container |= {
                "image": os.environ["PERENNIAL_SERVER_IMAGE"],
                "imagePullPolicy": place.settings.pull_policy,
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            }
            del container["envFrom"]
            container["command"] = ["python", "-m", "include.server", "--host=0.0.0.0", "--port=8080", "--log=/tmp/log"]
            slot = container["args"][0]
            container["args"] = [slot, "--model=toy", f"--artifact={HOME}/runs/model/manifest.json"]
    return servers


@pytest.fixture(scope="module")
def served(place: Place) -> Place:
    """Return the place with the model trained and its servers started."""
    if not os.environ.get("PERENNIAL_SERVER_IMAGE"):
        pytest.skip("PERENNIAL_SERVER_IMAGE names no image")
    trained = begin(place, "model", 1)
    until(lambda: place.phase(trained) in ("Succeeded", "Failed"))
    assert place.phase(trained) == "Succeeded", place.log(trained)
    for manifest in servers(place):
        place.create(manifest)
    return place


def gateway_of(place: Place) -> str:
    """Create the manifests' Gateway and route, of a class that a controller accepted, and return the Gateway's address."""
    gateway_class = next(
        part for part in check_cluster(Cluster("", place.kubeconfig)).parts if part.name == "Gateway class"
    )
    if not gateway_class.there:
        pytest.skip(f"no Gateway class: {gateway_class.without}")
    for manifest in render(ROOT / "include/manifests/overlays/cpu"):
        if manifest["kind"] in ("Gateway", "HTTPRoute"):
            if manifest["kind"] == "Gateway":
                manifest["spec"]["gatewayClassName"] = gateway_class.evidence.split(", ")[0]
            place.create(manifest)
    path = "apis/gateway.networking.k8s.io/v1/namespaced/gateways/perennial"
    cluster = Cluster(place.namespace, place.kubeconfig)
    until(lambda: cluster.get(path).get("status", {}).get("addresses"))
    return str(cluster.get(path)["status"]["addresses"][0]["value"])


def ask(place: Place, host: str, times: int, **headers: str) -> dict[str, float]:
    """Return the percentage of the requests that each slot answered, and of each code of an error."""
    name = f"ask-{uuid.uuid4().hex[:8]}"
    output = place.run(name, ASK.format(host=host, times=times, headers=headers), user=USER)
    return {slot: 100 * count / times for slot, count in json.loads(output).items()}


def settles(place: Place, host: str, least: float, most: float) -> None:
    """Wait until the canary has its percentage and nothing fails: a controller may report a route before it uses it."""

    def settled() -> bool:
        percentages = ask(place, host, 400)
        return percentages.keys() <= SLOTS and least <= percentages.get("canary", 0) <= most

    until(settled)


def test_a_rollout_goes_from_a_tenth_to_all_and_back_by_numbers_of_pods(served: Place) -> None:
    router, shares = ReplicasRouter(served.cluster, patience=600), {}
    for weight in (10, 50, 100, 0):
        router.apply("flights", Routes(weight))
        assert router.current("flights") == Routes(weight)
        percentages = ask(served, "flights", 400)
        assert percentages.keys() <= SLOTS, percentages
        shares[weight] = percentages.get("canary", 0)
    assert 3 <= shares[10] <= 20, shares
    assert 38 <= shares[50] <= 62, shares
    assert (shares[100], shares[0]) == (100, 0)


def test_a_rollout_goes_from_a_tenth_to_all_and_back_by_the_gateway(served: Place) -> None:
    host, router = gateway_of(served), GatewayApiRouter(served.cluster, patience=60)
    for slot in ("stable", "canary"):
        until(lambda: served.cluster.get(f"{DEPLOYMENT.format(slot)}")["status"].get("readyReplicas"))  # noqa: B023
    for weight, least, most in ((10, 3, 20), (100, 100, 100), (0, 0, 0)):
        router.apply("flights", Routes(weight))
        assert router.current("flights") == Routes(weight)
        settles(served, host, least, most)
    router.apply("flights", Routes(10))
    until(lambda: ask(served, host, 50, **{BUCKET_HEADER: "09"}) == {"canary": 100})
    assert ask(served, host, 50, **{BUCKET_HEADER: "10"}) == {"stable": 100}
