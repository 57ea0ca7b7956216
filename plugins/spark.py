"""The task `features` on a cluster: a SparkApplication that runs `include/jobs.py`."""

from importlib.metadata import version
from typing import Any

from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator

from include.adapters.spark import SUBMITTED
from include.settings import Settings
from include.spec import ModelSpec
from plugins import assets

#: Where the image has the project.
ROOT = "/srv/perennial"
WINDOWS = (
    "{{ params.start or data_interval_start.isoformat() }}",
    "{{ params.end or data_interval_end.isoformat() }}",
)
RUN = "{{ run_id | replace(':', '-') | replace('+', '-') }}"


def features(spec: ModelSpec, settings: Settings) -> SparkKubernetesOperator:
    """Waits for the application; a failed one fails the task, with the driver's log in Airflow's."""
    return SparkKubernetesOperator(
        task_id="features",
        name=f"{spec.name.replace('_', '-')}-features",
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
    """`SparkApplication` of the Spark operator (kubeflow.github.io/spark-operator, v1beta2)."""
    known = {"spark": SUBMITTED, "storage": settings.storage, "online": settings.online}
    variables = [{"name": f"PERENNIAL_{name.upper()}", "value": value} for name, value in known.items() if value]
    part: dict[str, Any] = {"cores": 1, "memory": "2g", "serviceAccount": "perennial-spark", "env": variables}
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "spec": {
            "type": "Python",
            "pythonVersion": "3",
            "mode": "cluster",
            "sparkVersion": version("pyspark"),
            "image": settings.spark_image,
            "mainApplicationFile": f"local://{ROOT}/include/jobs.py",
            "arguments": ["features", spec.name, *WINDOWS, RUN],
            "restartPolicy": {"type": "Never"},
            "timeToLiveSeconds": 3600,
            "driver": {**part, "labels": {"perennial/model": spec.name}},
            "executor": {**part, "instances": 2},
        },
    }
