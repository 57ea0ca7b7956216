"""The tasks of `<model>.watch` beside its operators: decide and request."""

from dataclasses import asdict
from typing import Any

from airflow.sdk import Variable, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.spec.model_spec import ModelSpec
from plugins import assets
from plugins.run import XComReference, open_model, run_name


@task(pool="serving")
def decide(model: str, snapshot_reference: XComReference) -> dict[str, Any]:
    """Decide from the snapshot whether to retrain, and record the decision with its reason in the ledger."""
    from include.artifacts.store import Reference
    from include.stages.monitoring import monitoring, snapshot

    spec, parts = open_model(model)
    ti = get_current_context()["ti"]
    running = ti.get_dr_count(dag_id=f"{model}.train", states=["running", "queued"])
    measured = snapshot.read(Reference(**snapshot_reference))
    decision = monitoring.decide_and_record(
        spec,
        measured,
        parts.ledger(),
        run=run_name(),
        running=f"{model}.train" if running else None,
        paused=_paused(model),
    )
    as_of = measured.as_of and measured.as_of.isoformat()
    return {**asdict(decision), "as_of": as_of, "evidence": snapshot_reference["uri"]}


def request(spec: ModelSpec, decision: Any) -> Any:
    """Return the task `request`, whose asset event starts `<model>.train`; it is skipped when nothing is to start."""

    @task(task_id="request", pool="serving", outlets=[assets.retraining(spec.name)])
    def request_training(model: str, decision: dict[str, Any]) -> Any:
        """Request a training on all windows labelled by `as_of`; the same cause and window make the same request."""
        if not decision["start"]:
            raise AirflowSkipException(decision["sentence"])
        if _paused(model):
            raise AirflowSkipException("a person has paused retraining since the decision")
        reason = {name: decision[name] for name in ("request", "cause", "sentence", "as_of", "evidence")}
        yield Metadata(assets.retraining(model), extra={**reason, "page": f"/perennial/{model}/reports/watch.html"})

    return request_training(spec.name, decision)


def _paused(model: str) -> bool:
    """Return whether the Airflow variable `retraining_paused` names the model at this moment."""
    return model in str(Variable.get("retraining_paused", default="")).replace(",", " ").split()
