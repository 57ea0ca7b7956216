"""Tasks of `<model>.data`: land, validate, features."""

from typing import Any

from airflow.sdk import Param, task

from include.domain.verdict import merge
from include.settings import from_env
from include.spec.model_spec import ModelSpec
from plugins import assets, connections
from plugins.current_run import open_model, run_name, windows_of_run
from plugins.outcome import raise_for_verdict

RANGE = {
    "start": Param(
        None, type=["null", "string"], description="Land from this time on; the run's own window when empty"
    ),
    "end": Param(None, type=["null", "string"], description="up to this time, exclusive"),
}


@task(pool="data")
def land(model: str) -> dict[str, int]:
    """Read the source's rows of the run's windows into `landed`; what cannot be read goes to `quarantine`."""
    from include.stages.data import landing

    spec, parts = open_model(model)
    source = parts.source(spec, connections.s3(spec.source.connection))
    report = landing.land(spec, windows_of_run(spec), source, parts.tables(spec), parts.records(spec), run_name())
    return {
        "read": report.read,
        "landed": report.landed,
        "quarantined": report.quarantined,
        "duplicates": report.duplicates,
        "windows": len(report.windows),
    }


@task(pool="data")
def validate(model: str) -> int:
    """Judge the landed windows with Great Expectations; a failing window blocks what depends on it, and nothing else."""
    from include.stages.data import validation

    spec, parts = open_model(model)
    verdicts = validation.validate(
        spec, windows_of_run(spec), parts.tables(spec), parts.validator(spec), parts.records(spec), run_name()
    )
    raise_for_verdict(merge(f"{len(verdicts)} windows", list(verdicts.values())))
    return len(verdicts)


@task(pool="data", max_active_tis_per_dag=1)
def compact(model: str) -> dict[str, int]:
    """Move what the model servers logged from finished segments into the tables `predictions` and `feedback`."""
    from datetime import UTC, datetime

    from include.stages.data import compaction

    spec, parts = open_model(model)
    return compaction.compact(spec, parts.prediction_log(), parts.tables(spec), run_name(), datetime.now(UTC))


def build_features(spec: ModelSpec) -> Any:
    """Return the task `features`, whose asset starts the DAGs that wait for new windows."""
    if spec.features.engine == "spark" and from_env().launcher == "kubernetes":
        from include.wiring import parts
        from plugins import spark_operator  # the provider takes seconds to import

        return spark_operator.features(spec, parts())

    @task(pool="data", trigger_rule="all_done", outlets=[assets.features(spec.name)])
    def features(model: str) -> int:
        """Compute the features of the windows that passed, and fail naming those that did not."""
        from include.stages.features import features as stage

        spec, parts = open_model(model)
        windows, services = windows_of_run(spec), parts.feature_services(spec)
        built = stage.build(spec, windows, services, run_name())
        stage.check_complete(windows, services.records)
        return len(built)

    return features(spec.name)
