"""Tasks of `<model>.watch`: sense, decide, request."""

from dataclasses import asdict
from typing import Any

from airflow.sdk import Variable, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.spec import ModelSpec
from plugins import assets
from plugins.run import Ref, open_model, run_name


@task(pool="serving")
def sense(model: str) -> Ref:
    """Read every signal of production; the record of what was seen."""
    from include.stages import monitoring, observation

    spec, parts = open_model(model)
    look = monitoring.sense(spec, tables=parts.tables(spec), signals=parts.signals(), registry=parts.registry())
    for signal in look.signals:
        print(f"{signal.state:<8} {signal.name:<17} {signal.sentence}")  # noqa: T201 - the task's log is read by people
    return asdict(observation.keep(look, parts.watch_folder(spec) / f"{run_name()}.json"))


@task(pool="serving")
def decide(model: str, seen: Ref) -> dict[str, Any]:
    """Retrain or not, and why; a row in the ledger either way."""
    from include.ports import Reference
    from include.stages import monitoring, observation

    spec, parts = open_model(model)
    ti = get_current_context()["ti"]
    running = ti.get_dr_count(dag_id=f"{model}.train", states=["running", "queued"])
    paused = model in str(Variable.get("retraining_paused", default="")).replace(",", " ").split()
    decision = monitoring.decide_and_record(
        spec, observation.kept(Reference(**seen)), parts.ledger(), run=run_name(),
        running=f"{model}.train" if running else None, paused=paused)  # fmt: skip
    return asdict(decision)


@task(pool="serving")
def report(model: str, decision: dict[str, Any]) -> str | None:
    """The page for people: performance and drift since the champion's training, and every decision with its reason."""
    from include.stages import history

    spec, parts = open_model(model)
    course = history.course(
        spec, tables=parts.tables(spec), signals=parts.signals(), registry=parts.registry(), ledger=parts.ledger()
    )
    return course and str(parts.watch_page(spec, course))


def request(spec: ModelSpec, decision: Any) -> Any:
    """The task `request`: an asset event with the cause starts `<model>.train`; skipped when nothing is to start."""

    @task(task_id="request", pool="serving", outlets=[assets.retraining(spec.name)])
    def request_training(model: str, decision: dict[str, Any]) -> Any:
        """Ask for a training, with the cause and an id that is the same however often it is asked."""
        if not decision["start"]:
            raise AirflowSkipException(decision["sentence"])
        asked = {name: decision[name] for name in ("request", "cause", "sentence")}
        yield Metadata(assets.retraining(model), extra=asked)

    return request_training(spec.name, decision)
