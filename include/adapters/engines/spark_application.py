"""A SparkApplication as the Spark operator takes it (kubeflow.github.io/spark-operator, v1beta2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include.adapters.engines.spark import SUBMITTED
from include.adapters.kubernetes import CONTAINER_SECURITY, POD_SECURITY, name_of
from include.adapters.training.pods import HOME_CLAIM, STORAGE_SECRET
from include.settings import Settings
from include.spec.model_spec import ModelSpec

#: Where the image has the project, and the program in it.
IMAGE_ROOT = "/srv/perennial"
PROGRAM = "include/entrypoints/spark_features.py"
#: The driver's service account: it starts executors.
SERVICE_ACCOUNT = "perennial-spark"
#: Tables name their files `s3://`; address and keys are read from the environment.
HADOOP = {"fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem", "fs.s3a.path.style.access": "true"}


@dataclass(frozen=True)
class SparkApplication:
    """An application's name, and its manifest as the Kubernetes API takes it."""

    name: str
    manifest: dict[str, Any]


def features(spec: ModelSpec, settings: Settings, arguments: Sequence[str]) -> SparkApplication:
    """Return the application that builds a model's features: `arguments` are start, end and run.

    The records of the windows lie in the home volume, and the tables too where storage is no bucket.
    """
    pod = _pod(spec, settings)
    application = {
        "type": "Python",
        "pythonVersion": "3",
        "mode": "cluster",
        "sparkVersion": settings.spark_version,
        "image": settings.spark_image,
        "imagePullPolicy": settings.pull_policy,
        "mainApplicationFile": f"local://{IMAGE_ROOT}/{PROGRAM}",
        "arguments": ["features", spec.name, *arguments],
        "restartPolicy": {"type": "Never"},
        "timeToLiveSeconds": 3600,
        "hadoopConf": HADOOP,
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": HOME_CLAIM}}],
        "driver": {**pod, "serviceAccount": SERVICE_ACCOUNT},
        "executor": {**pod, "instances": 2},
    }
    manifest = {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "spec": application}
    return SparkApplication(f"{name_of(spec.name)}-features", manifest)


def _pod(spec: ModelSpec, settings: Settings) -> dict[str, Any]:
    """Return what the driver and each executor have in common."""
    places = {"home": str(settings.home), "spark": SUBMITTED, "storage": settings.storage, "online": settings.online}
    return {
        "cores": 1,
        "memory": "2g",
        "labels": {"perennial.dev/model": name_of(spec.name)},
        "env": [{"name": f"PERENNIAL_{name.upper()}", "value": value} for name, value in places.items() if value],
        "envFrom": [{"secretRef": {"name": STORAGE_SECRET, "optional": True}}],
        "podSecurityContext": POD_SECURITY,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "home", "mountPath": str(settings.home)}],
    }
