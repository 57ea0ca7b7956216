"""Tasks of `<model>.train`: from validated windows to a released version."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.domain.errors import UserMistake
from include.domain.events import RequestClaimed
from include.domain.windows import parse_utc, window_of
from include.settings import from_env
from include.spec.model_spec import ModelSpec
from plugins import assets
from plugins.current_run import (
    TaskOutput,
    TrainingRequest,
    XComReference,
    event_extra,
    open_model,
    run_name,
    synced_run_folder,
    training_request,
    training_run,
)
from plugins.outcome import raise_for_verdict
from plugins.tasks import search

if TYPE_CHECKING:
    from include.wiring import Parts

AS_OF = {
    "as_of": Param(
        None, type=["null", "string"], description="Train as if it were this time; the data's end when empty"
    ),
    "cause": Param("asked for by a person", type="string", description="Why this training is started"),
}


@task(task_id="validate", pool="data")
def check_windows(model: str) -> dict[str, str | None]:
    """Say why this training runs, and check that every window up to then has passed validation."""
    from include.stages.data import validation
    from include.stages.monitoring import monitoring

    spec, parts = open_model(model)
    cause, request, requested_as_of = _requested()
    tables = parts.tables(spec)
    if request:
        _claim(parts, model, request)
    as_of = parse_utc(requested_as_of) if requested_as_of else monitoring.data_clock(tables, spec.window)
    if as_of is None:
        raise UserMistake(f"{model}: no window has landed yet; run {model}.data first")
    landed = [window_of(name, spec.window) for name in tables.windows("landed")]
    if failed := validation.not_validated([w for w in landed if w.end <= as_of], parts.records(spec)):
        raise UserMistake(f"{', '.join(failed)} did not pass validation; mend the source and run {model}.data for them")
    return asdict(TrainingRequest(cause, request, as_of.isoformat()))


@task(task_id="features", pool="data")
def assemble(model: str, request: TaskOutput[dict[str, str]]) -> XComReference:
    """Fit the encoding on the training windows alone and write the dataset."""
    from include.stages.training import dataset

    spec, parts = open_model(model)
    with synced_run_folder(spec, parts) as folder:
        as_of = parse_utc(request["as_of"])
        return asdict(dataset.assemble(spec, as_of, parts.tables(spec), run_name(), folder / "dataset"))


def train(spec: ModelSpec, dataset: TaskOutput[XComReference]) -> Any:
    """Return the task `train`, which may take as long as the spec says, behind the tasks of the search that the spec asks for."""
    if spec.training.search:
        return search.train(spec, dataset)
    if from_env().launcher == "kubernetes":
        return _on_cluster(spec, dataset)

    @task(task_id="train", pool="training", execution_timeout=spec.training.timeout)
    def train_challenger(model: str, dataset: XComReference) -> XComReference:
        """Train the spec's model under torchrun; a retry resumes from the last checkpoint."""
        from include.stages.training import training

        spec, parts = open_model(model)
        result = training.train(spec, training_run(spec, parts, dataset, warm_start=True), parts.launcher())
        training.record_hours(spec, [result], training_request().as_of, run_name(), parts.ledger())
        return asdict(result)

    return train_challenger(spec.name, dataset)


def train_baselines(spec: ModelSpec, dataset: TaskOutput[XComReference]) -> Any:
    """Return the task `baselines`."""
    if from_env().launcher == "kubernetes":
        return _on_cluster(spec, dataset, baselines=True)

    @task(task_id="baselines", pool="training", execution_timeout=spec.training.timeout)
    def train_each(model: str, dataset: XComReference) -> dict[str, XComReference]:
        """Train the baselines of the gates on the same rows."""
        from include.stages.training import training

        spec, parts = open_model(model)
        run, launcher = training_run(spec, parts, dataset), parts.launcher()
        return {family: asdict(training.train(spec, run, launcher, family=family)) for family in spec.baselines}

    return train_each(spec.name, dataset)


def _on_cluster(spec: ModelSpec, dataset: TaskOutput[XComReference], *, baselines: bool = False) -> Any:
    from plugins import kubernetes_operators

    return kubernetes_operators.training_operator(spec, dataset, baselines=baselines).output


@task(pool="data")
def evaluate(
    model: str,
    dataset: TaskOutput[XComReference],
    challenger: TaskOutput[XComReference],
    baselines: TaskOutput[dict[str, XComReference]],
) -> XComReference:
    """Score the same test rows with challenger, champion and baselines."""
    from include.artifacts.store import Reference
    from include.stages.evaluation import evaluation

    spec, parts = open_model(model)
    models = {"challenger": Reference(**challenger), **{f: Reference(**r) for f, r in baselines.items()}}
    champion = parts.registry().version_by_alias(model, "champion")
    with synced_run_folder(spec, parts) as folder:
        if champion:
            parts.storage().pull(Path(champion.artifact.uri).parent)
        reference = evaluation.evaluate(
            spec,
            Reference(**dataset),
            models,
            champion,
            tables=parts.tables(spec),
            scorer=parts.scorer(),
            folder=folder,
        )
    return asdict(reference)


@task(pool="data")
def gate(model: str, evidence: TaskOutput[XComReference]) -> XComReference:
    """Serve the challenger to a thousand test rows and judge it; one that fails ends here, its reasons on record."""
    from include.artifacts.store import Reference
    from include.reports import model_card
    from include.stages.evaluation import evaluation, serving_check
    from include.stages.release import promotion

    spec, parts = open_model(model)
    with synced_run_folder(spec, parts):
        reference = Reference(**evidence)
        measured = serving_check.measure_server(
            spec, reference, tables=parts.tables(spec), scorer=parts.scorer(), probe=parts.probe()
        )
        result = evaluation.judge(spec, reference, measured)
        pages = model_card.write(reference, result.record, training_request().cause)
        description = model_card.markdown_path(reference).read_text(encoding="utf-8")
        promotion.publish(model, reference, result, pages, description, parts.release())
        if not spec.gates.dry_run:
            raise_for_verdict(result.verdict)
        return asdict(result.record)


@task(pool="serving")
def register(
    model: str, evidence: TaskOutput[XComReference], verdict: TaskOutput[XComReference]
) -> dict[str, str | None]:
    """Register the version with its evidence; registering twice gives one version."""
    from include.artifacts.store import Reference
    from include.reports import model_card
    from include.stages.evaluation import evaluation
    from include.stages.release import promotion

    spec, parts = open_model(model)
    parts.storage().pull(parts.run_folder(spec, run_name()))
    reference, result = Reference(**evidence), evaluation.result_of(Reference(**verdict))
    version = promotion.register(model, reference, result, parts.release())
    return {
        "version": version.number,
        "outcome": result.verdict.outcome,
        "card": str(model_card.markdown_path(reference)),
        "page": promotion.evidence_url(version, parts.registry()),
    }


def release(spec: ModelSpec, registered: TaskOutput[dict[str, str]], answer: TaskOutput[dict[str, Any]]) -> Any:
    """Return the task `release`: an approved version goes to the rollout, a rejected one keeps its reasons."""

    @task(task_id="release", pool="serving", outlets=[assets.challenger(spec.name)])
    def release_version(model: str, registered: dict[str, str], answer: dict[str, Any]) -> Any:
        """Record who answered and what; approval starts the rollout."""
        from include.stages.release import promotion

        _, parts = open_model(model)
        version, reason = registered["version"], (answer["params_input"] or {}).get("reason")
        by = str((answer.get("responded_by_user") or {}).get("name") or "nobody in time")
        if answer["chosen_options"] != ["Approve"]:
            reason = reason or "no reason was given"
            promotion.reject(model, version, [reason], by, datetime.now(UTC), parts.release())
            raise AirflowSkipException(f"version {version} was rejected by {by}: {reason}")
        promotion.approve(model, version, by, datetime.now(UTC), parts.release())
        yield Metadata(assets.challenger(model), extra={"version": version, "approved_by": by})

    return release_version(spec.name, registered, answer)


def _requested() -> tuple[str, str | None, str | None]:
    """Return why this training runs, the request of the watch that it answers, and the time whose data it takes.

    They come from the watch's asset event, or else from the schedule or the person who started the run.
    """
    context = get_current_context()
    extra = event_extra()
    if "request" in extra:
        return extra["sentence"], extra["request"], extra["as_of"]
    scheduled = str(context["run_id"]).startswith("scheduled__")
    return "its schedule" if scheduled else context["params"]["cause"], None, context["params"]["as_of"]


def _claim(parts: "Parts", model: str, request: str) -> None:
    """Record that this run answers the request. A second run for it, after a replayed event, is skipped."""
    ledger = parts.ledger()
    claimed_by = next((event.run for event in ledger.read(model, RequestClaimed) if event.request == request), None)
    if claimed_by is None:
        ledger.append(model, RequestClaimed(request=request, run=run_name()))
    elif claimed_by != run_name():
        raise AirflowSkipException(f"request {request} is run {claimed_by} already")
