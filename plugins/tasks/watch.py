"""The tasks of `<model>.watch` beside its operators: decide and request."""

from collections.abc import Iterator
from typing import Any, TypedDict

from airflow.sdk import Variable, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException
from pydantic import JsonValue

from include.spec.model_spec import ModelSpec
from plugins import assets
from plugins.current_run import TaskOutput, XComReference, open_model, run_name


class DecisionXCom(TypedDict):
    """A decision as XCom carries it; `evidence` is the place of the snapshot that it rests on."""

    start: bool
    sentence: str
    cause: str | None
    request: str | None
    as_of: str | None
    evidence: str


@task(pool="serving")
def decide(model: str, snapshot_reference: TaskOutput[XComReference]) -> DecisionXCom:
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
        paused=retraining_paused(model),
    )
    return {
        "start": decision.start,
        "sentence": decision.sentence,
        "cause": decision.cause,
        "request": decision.request,
        "as_of": measured.as_of.isoformat() if measured.as_of else None,
        "evidence": snapshot_reference["uri"],
    }


def request(spec: ModelSpec, decision: TaskOutput[DecisionXCom]) -> Any:
    """Return the task `request`, whose asset event starts `<model>.train`; it is skipped when nothing is to start."""

    @task(task_id="request", pool="serving", outlets=[assets.retraining(spec.name)])
    def request_training(model: str, decision: DecisionXCom) -> Iterator[Metadata]:
        """Request a training on all windows labelled by `as_of`; the same cause and window make the same request."""
        if not decision["start"]:
            raise AirflowSkipException(decision["sentence"])
        if retraining_paused(model):
            raise AirflowSkipException("a person has paused retraining since the decision")
        extra: dict[str, JsonValue] = {
            "request": decision["request"],
            "cause": decision["cause"],
            "sentence": decision["sentence"],
            "as_of": decision["as_of"],
            "evidence": decision["evidence"],
            "page": f"/perennial/{model}/reports/watch.html",
        }
        yield Metadata(assets.retraining(model), extra=extra)

    return request_training(spec.name, decision)


def retraining_paused(model: str) -> bool:
    """Return whether the Airflow variable `retraining_paused` names the model at this moment."""
    return model in str(Variable.get("retraining_paused", default="")).replace(",", " ").split()
