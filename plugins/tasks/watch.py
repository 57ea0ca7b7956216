"""Tasks of `<model>.watch` beside its operators: decide, request."""

from dataclasses import asdict
from typing import Any

from airflow.sdk import Variable, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.spec.model_spec import ModelSpec
from plugins import assets
from plugins.run import XComReference, open_model, run_name


@task(pool="serving")
def decide(model: str, seen: XComReference) -> dict[str, Any]:
    """Retrain or not, and why; a row in the ledger either way."""
    from include.artifacts.store import Reference
    from include.stages.monitoring import monitoring, snapshot

    spec, parts = open_model(model)
    ti = get_current_context()["ti"]
    running = ti.get_dr_count(dag_id=f"{model}.train", states=["running", "queued"])
    look = snapshot.kept(Reference(**seen))
    decision = monitoring.decide_and_record(
        spec, look, parts.ledger(), run=run_name(),
        running=f"{model}.train" if running else None, paused=_paused(model))  # fmt: skip
    return {**asdict(decision), "as_of": look.as_of and look.as_of.isoformat(), "evidence": seen["uri"]}


def request(spec: ModelSpec, decision: Any) -> Any:
    """The task `request`: an asset event with the cause starts `<model>.train`; skipped when nothing is to start."""

    @task(task_id="request", pool="serving", outlets=[assets.retraining(spec.name)])
    def request_training(model: str, decision: dict[str, Any]) -> Any:
        """Ask for a training on all windows labelled by `as_of`, with the cause; asked again, the id is the same."""
        if not decision["start"]:
            raise AirflowSkipException(decision["sentence"])
        if _paused(model):
            raise AirflowSkipException("a person has paused retraining since the decision")
        asked = {name: decision[name] for name in ("request", "cause", "sentence", "as_of", "evidence")}
        yield Metadata(assets.retraining(model), extra={**asked, "page": f"/perennial/{model}/reports/watch.html"})

    return request_training(spec.name, decision)


def _paused(model: str) -> bool:
    """Whether the Airflow variable names the model, at this moment."""
    return model in str(Variable.get("retraining_paused", default="")).replace(",", " ").split()
