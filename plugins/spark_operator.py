"""The task `features` on a cluster: a SparkApplication that runs `include/entrypoints/spark_features.py`."""

from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator

from include.spec.model_spec import ModelSpec
from include.wiring import Parts
from plugins import assets

#: The program's arguments, which Airflow fills in when the task runs: start, end and run.
ARGUMENTS = (
    "{{ params.start or data_interval_start.isoformat() }}",
    "{{ params.end or data_interval_end.isoformat() }}",
    "{{ run_id | replace(':', '-') | replace('+', '-') }}",
)


def features(spec: ModelSpec, parts: Parts) -> SparkKubernetesOperator:
    """Return the task that waits for the application; a failed one fails it, with the driver's log in Airflow's."""
    application, settings = parts.spark_application(spec, ARGUMENTS), parts.settings
    return SparkKubernetesOperator(
        task_id="features",
        name=application.name,
        namespace=settings.namespace,
        template_spec={"spark": application.manifest},
        config_file=settings.kubeconfig or None,
        in_cluster=not settings.kubeconfig,
        get_logs=True,
        delete_on_termination=True,
        pool="data",
        trigger_rule="all_done",
        outlets=[assets.features(spec.name)],
    )
