"""The task `features` on a cluster: a SparkApplication that runs `include/entrypoints/spark_features.py`."""

from typing import Any

from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator

from include.adapters.engines.spark import SUBMITTED
from include.adapters.kubernetes import CONTAINER_SECURITY, POD_SECURITY, name_of
from include.adapters.training.pods import HOME_CLAIM, STORAGE_SECRET
from include.settings import Settings
from include.spec.model_spec import ModelSpec
from plugins import assets

#: Where the image has the project.
ROOT = "/srv/perennial"
#: The driver's: it starts executors.
ACCOUNT = "perennial-spark"
#: Tables name their files `s3://`; address and keys are read from the environment.
S3 = {"fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem", "fs.s3a.path.style.access": "true"}
WINDOWS = (
    "{{ params.start or data_interval_start.isoformat() }}",
    "{{ params.end or data_interval_end.isoformat() }}",
)
RUN = "{{ run_id | replace(':', '-') | replace('+', '-') }}"


def features(spec: ModelSpec, settings: Settings) -> SparkKubernetesOperator:
    """Waits for the application; a failed one fails the task, with the driver's log in Airflow's."""
    return SparkKubernetesOperator(
        task_id="features",
        name=f"{name_of(spec.name)}-features",
        namespace=settings.namespace,
        template_spec={"spark": application(spec, settings)},
        config_file=settings.kubeconfig or None,
        in_cluster=not settings.kubeconfig,
        get_logs=True,
        delete_on_termination=True,
        pool="data",
        trigger_rule="all_done",
        outlets=[assets.features(spec.name)],
    )


def application(spec: ModelSpec, settings: Settings) -> dict[str, Any]:
    """`SparkApplication` of the Spark operator (kubeflow.github.io/spark-operator, v1beta2).

    The records of the windows lie in the home volume, and the tables too where storage is no bucket.
    """
    known = {"home": str(settings.home), "spark": SUBMITTED, "storage": settings.storage, "online": settings.online}
    part: dict[str, Any] = {
        "cores": 1, "memory": "2g", "labels": {"perennial.dev/model": name_of(spec.name)},
        "env": [{"name": f"PERENNIAL_{name.upper()}", "value": value} for name, value in known.items() if value],
        "envFrom": [{"secretRef": {"name": STORAGE_SECRET, "optional": True}}],
        "podSecurityContext": POD_SECURITY, "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "home", "mountPath": str(settings.home)}],
    }  # fmt: skip
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "spec": {
            "type": "Python",
            "pythonVersion": "3",
            "mode": "cluster",
            "sparkVersion": settings.spark_version,
            "image": settings.spark_image,
            "imagePullPolicy": settings.pull_policy,
            "mainApplicationFile": f"local://{ROOT}/include/entrypoints/spark_features.py",
            "arguments": ["features", spec.name, *WINDOWS, RUN],
            "restartPolicy": {"type": "Never"},
            "timeToLiveSeconds": 3600,
            "hadoopConf": S3,
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": HOME_CLAIM}}],
            "driver": {**part, "serviceAccount": ACCOUNT},
            "executor": {**part, "instances": 2},
        },
    }
