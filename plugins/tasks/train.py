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
from plugins.outcome import settle
from plugins.run import (
    XComReference,
    checked,
    event_extra,
    open_model,
    run_name,
    synced_run_folder,
    warm_start_artifact,
)
from plugins.tasks import search

if TYPE_CHECKING:
    from include.artifacts.store import Reference
    from include.wiring import Parts

AS_OF = {
    "as_of": Param(
        None, type=["null", "string"], description="Train as if it were this time; the data's end when empty"
    ),
    "cause": Param("asked for by a person", type="string", description="Why this training is started"),
}


@task(task_id="validate", pool="data")
def check_windows(model: str) -> dict[str, str]:
    """Say why this training runs, and check that every window up to then has passed validation."""
    from include.stages.data import validation
    from include.stages.monitoring import monitoring

    spec, parts = open_model(model)
    asked, tables = _asked(model), parts.tables(spec)
    if asked["request"]:
        _single(parts, model, asked["request"])
    as_of = parse_utc(asked["as_of"]) if asked["as_of"] else monitoring.clock(tables, spec.window)
    if as_of is None:
        raise UserMistake(f"{model}: no window has landed yet; run {model}.data first")
    landed = [window_of(name, spec.window) for name in tables.windows("landed")]
    if failed := validation.failed([w for w in landed if w.end <= as_of], parts.records(spec)):
        raise UserMistake(f"{', '.join(failed)} did not pass validation; mend the source and run {model}.data for them")
    return {**asked, "as_of": as_of.isoformat()}


@task(task_id="features", pool="data")
def assemble(model: str, asked: dict[str, str]) -> XComReference:
    """Fit the encoding on the training windows alone and write the dataset."""
    from include.stages.training import dataset as assembly

    spec, parts = open_model(model)
    with synced_run_folder(spec, parts) as folder:
        return asdict(
            assembly.assemble(spec, parse_utc(asked["as_of"]), parts.tables(spec), run_name(), folder / "dataset")
        )


def train(spec: ModelSpec, dataset: Any) -> Any:
    """The task `train`, which may take as long as the spec says; with the search's tasks before it where it asks for one."""
    if spec.training.search:
        return search.train(spec, dataset)
    if from_env().launcher == "kubernetes":
        return _on_cluster(spec, dataset)

    @task(task_id="train", pool="training", execution_timeout=spec.training.timeout)
    def train_challenger(model: str, dataset: XComReference) -> XComReference:
        """Train the spec's model under torchrun; a retry resumes from the last checkpoint."""
        from include.stages.training import training

        spec, parts = open_model(model)
        result = _train(spec, parts, dataset, spec.model.family, start=warm_start_artifact(spec, parts))
        training.account(spec, [result], checked()["as_of"], run_name(), parts.ledger())
        return asdict(result)

    return train_challenger(spec.name, dataset)


def train_baselines(spec: ModelSpec, dataset: Any) -> Any:
    """The task `baselines`."""
    if from_env().launcher == "kubernetes":
        return _on_cluster(spec, dataset, baselines=True)

    @task(task_id="baselines", pool="training", execution_timeout=spec.training.timeout)
    def train_each(model: str, dataset: XComReference) -> dict[str, XComReference]:
        """Train the baselines of the gates on the same rows."""
        spec, parts = open_model(model)
        return {family: asdict(_train(spec, parts, dataset, family)) for family in spec.gates.baselines}

    return train_each(spec.name, dataset)


def _on_cluster(spec: ModelSpec, dataset: Any, *, baselines: bool = False) -> Any:
    from plugins import kubernetes_operators

    return kubernetes_operators.operator(spec, dataset, baselines=baselines).output


@task(pool="data")
def evaluate(
    model: str, dataset: XComReference, challenger: XComReference, baselines: dict[str, XComReference]
) -> XComReference:
    """Score the same test rows with challenger, champion and baselines."""
    from include.artifacts.store import Reference
    from include.stages.evaluation import evaluation

    spec, parts = open_model(model)
    models = {"challenger": Reference(**challenger), **{f: Reference(**r) for f, r in baselines.items()}}
    champion = parts.registry().alias(model, "champion")
    with synced_run_folder(spec, parts) as folder:
        if champion:
            parts.storage().pull(Path(champion.artifact.uri).parent)
        return asdict(
            evaluation.evaluate(
                spec,
                Reference(**dataset),
                models,
                champion,
                tables=parts.tables(spec),
                scorer=parts.scorer(),
                folder=folder,
            )
        )


@task(pool="data")
def gate(model: str, evidence: XComReference) -> XComReference:
    """Serve the challenger to a thousand test rows and judge it; one that fails ends here, its reasons on record."""
    from include.artifacts.store import Reference
    from include.reports import model_card
    from include.stages.evaluation import evaluation, serving_check
    from include.stages.release import promotion

    spec, parts = open_model(model)
    with synced_run_folder(spec, parts):
        known = Reference(**evidence)
        measured = serving_check.rehearse(
            spec, known, tables=parts.tables(spec), scorer=parts.scorer(), probe=parts.probe()
        )
        judged = evaluation.judge(spec, known, measured)
        pages = model_card.write(known, judged, checked()["cause"])
        promotion.publish(
            model,
            known,
            judged,
            pages,
            model_card.markdown_of(known).read_text(encoding="utf-8"),
            registry=parts.registry(),
            ledger=parts.ledger(),
        )
        if not spec.gates.dry_run:
            settle(judged.verdict)
        return asdict(judged.record)


@task(pool="serving")
def register(model: str, evidence: XComReference, verdict: XComReference) -> dict[str, str | None]:
    """Register the version with its evidence; registering twice gives one version."""
    from include.artifacts.store import Reference
    from include.reports import model_card
    from include.stages.evaluation import evaluation
    from include.stages.release import promotion

    spec, parts = open_model(model)
    parts.storage().pull(parts.run_folder(spec, run_name()))
    judged = evaluation.judged(Reference(**verdict))
    version = promotion.register(model, Reference(**evidence), judged, registry=parts.registry(), ledger=parts.ledger())
    shown = {
        "card": str(model_card.markdown_of(Reference(**evidence))),
        "page": promotion.page(version, parts.registry()),
    }
    return {"version": version.number, "outcome": judged.verdict.outcome, **shown}


def release(spec: ModelSpec, registered: Any, answer: Any) -> Any:
    """The task `release`: an approved version goes to the rollout, a rejected one keeps its reasons."""

    @task(task_id="release", pool="serving", outlets=[assets.challenger(spec.name)])
    def release_version(model: str, registered: dict[str, str], answer: dict[str, Any]) -> Any:
        """Record who answered and what; approval starts the rollout."""
        from include.stages.release import promotion

        _, parts = open_model(model)
        version, reason = registered["version"], (answer["params_input"] or {}).get("reason")
        by = str((answer.get("responded_by_user") or {}).get("name") or "nobody in time")
        kept = {"registry": parts.registry(), "ledger": parts.ledger()}
        if answer["chosen_options"] != ["Approve"]:
            promotion.reject(model, version, [reason or "no reason was given"], by, datetime.now(UTC), **kept)
            raise AirflowSkipException(f"version {version} was rejected by {by}: {reason or 'no reason was given'}")
        promotion.approve(model, version, by, datetime.now(UTC), **kept)
        yield Metadata(assets.challenger(model), extra={"version": version, "approved_by": by})

    return release_version(spec.name, registered, answer)


def _asked(model: str) -> dict[str, Any]:
    """Why this training runs: the watch's event, or what a person or the schedule gave."""
    context = get_current_context()
    extra = event_extra()
    if "request" in extra:
        return {"cause": extra["sentence"], "request": extra["request"], "as_of": extra["as_of"]}
    scheduled = str(context["run_id"]).startswith("scheduled__")
    cause = "its schedule" if scheduled else context["params"]["cause"]
    return {"cause": cause, "request": None, "as_of": context["params"]["as_of"]}


def _single(parts: "Parts", model: str, request: str) -> None:
    """One training a request: a second run for it, after a replayed event, is skipped."""
    ledger = parts.ledger()
    claimed_by = next((event.run for event in ledger.read(model, RequestClaimed) if event.request == request), None)
    if claimed_by is None:
        ledger.append(model, RequestClaimed(request=request, run=run_name()))
    elif claimed_by != run_name():
        raise AirflowSkipException(f"request {request} is run {claimed_by} already")


def _train(
    spec: ModelSpec, parts: "Parts", dataset: XComReference, family: Any, start: "Reference | None" = None
) -> "Reference":  # fmt: skip
    from include.artifacts.store import Reference
    from include.stages.training import training

    return training.train(
        spec, Reference(**dataset), parts.run_folder(spec, run_name()), parts.launcher(),
        family=family, start=start, tracking_url=parts.settings.mlflow_url, tags={"cause": checked()["cause"]})  # fmt: skip
