"""What is kubernetes of the cluster for a training, field by field, and that Kubernetes takes it."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from include.adapters.training.pods import TrainingManifests
from include.settings import Settings
from include.spec.model_spec import ModelSpec
from tests.unit.toy import toy

SETTINGS = Settings(home=Path("/var/lib/perennial"), storage="s3://perennial/prod", trainer_image="registry/trainer:1")
JOB = Path("/var/lib/perennial/runs/toy/r1/dcn/job.json")
MANIFESTS = TrainingManifests(SETTINGS)
PODS: dict[str, Any] = {
    "gpus": 4,
    "gpu_type": "NVIDIA-H100-80GB-HBM3",
    "cpu": "16",
    "memory": "128Gi",
    "shared_memory": "16Gi",
    "node_selector": {"pool": "spot"},
    "priority_class": "training",
    "grace": "PT90S",
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
}


def spec(**kubernetes: Any) -> ModelSpec:
    return toy(training={"timeout": "PT2H", "processes": 2, "kubernetes": kubernetes})


def test_a_pod_is_what_the_spec_asks_for_field_by_field() -> None:
    golden = json.loads(Path(__file__).with_name("training_pod.json").read_text())
    assert MANIFESTS.pod(spec(**PODS), [JOB], "abc") == golden


def test_a_job_of_two_nodes_is_too() -> None:
    golden = json.loads(Path(__file__).with_name("training_job.json").read_text())
    assert MANIFESTS.job(spec(**PODS, nodes=2), [JOB], "abc") == golden


@pytest.mark.parametrize("kubernetes", [{}, PODS, {"nodes": 3}])
def test_kubernetes_takes_both(kubernetes: dict[str, Any]) -> None:
    for thing in (
        MANIFESTS.pod(spec(**kubernetes), [JOB], "a"),
        MANIFESTS.job(spec(**kubernetes), [JOB], "a"),
    ):
        kubernetes_validate.validate(thing, "1.36", strict=True)


def test_without_gpus_the_specs_processes_train_and_no_gpu_is_asked_for() -> None:
    (container,) = MANIFESTS.pod(spec(), [JOB], "a")["spec"]["containers"]
    assert container["command"][-1] == "--processes=2"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_without_a_bucket_the_pods_share_the_home_volume() -> None:
    volumes = TrainingManifests(Settings()).pod(spec(), [JOB], "a")["spec"]["volumes"]
    assert {"name": "home", "persistentVolumeClaim": {"claimName": "perennial-home"}} in volumes


def test_no_secret_is_written_into_a_pod() -> None:
    (container,) = MANIFESTS.pod(spec(), [JOB], "a")["spec"]["containers"]
    assert {e["name"] for e in container["env"]} == {"PERENNIAL_HOME", "PERENNIAL_STORAGE"}
    assert container["envFrom"] == [{"secretRef": {"name": "perennial-storage", "optional": True}}]
