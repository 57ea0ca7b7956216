"""The DAGs' tasks: each takes references, calls one stage with its parts, and returns references.

Imports of stages stand inside the tasks: parsing a DAG file must not pay for what running a task needs.
"""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, Variable, get_current_context, task
from airflow.sdk.definitions.asset.metadata import Metadata
from airflow.sdk.exceptions import AirflowSkipException

from include.domain.errors import UserMistake
from include.domain.verdict import merge
from include.domain.windows import Window, parse
from include.spec import ModelSpec, find
from plugins import assets
from plugins.outcome import settle

if TYPE_CHECKING:
    from include.ports import Reference
    from include.wiring import Parts

Ref = dict[str, str]

RANGE = {
    "start": Param(
        None, type=["null", "string"], description="Land from this time on; the run's own window when empty"
    ),
    "end": Param(None, type=["null", "string"], description="up to this time, exclusive"),
}
AS_OF = {
    "as_of": Param(
        None, type=["null", "string"], description="Train as if it were this time; the data's end when empty"
    ),
    "cause": Param("asked for by a person", type="string", description="Why this training is started"),
}


# ---- <model>.data


@task(pool="data")
def land(model: str) -> dict[str, int]:
    """Read the source's rows of the run's windows into `landed`; what cannot be read goes to `quarantine`."""
    from include.stages import landing

    spec, parts = _open(model)
    report = landing.land(spec, _windows(spec), parts.source(spec), parts.tables(spec), parts.records(spec), _run())
    return {"read": report.read, "landed": report.landed, "quarantined": report.quarantined,
            "duplicates": report.duplicates, "windows": len(report.windows)}  # fmt: skip


@task(pool="data")
def validate(model: str) -> int:
    """Judge the landed windows with Great Expectations; a failing window blocks what depends on it, and nothing else."""
    from include.stages import validation

    spec, parts = _open(model)
    verdicts = validation.validate(
        spec, _windows(spec), parts.tables(spec), parts.validator(spec), parts.records(spec), _run()
    )
    settle(merge(f"{len(verdicts)} windows", list(verdicts.values())))
    return len(verdicts)


def build_features(spec: ModelSpec) -> Any:
    """The task `features`; its asset tells whoever waits for new windows."""

    @task(pool="data", trigger_rule="all_done", outlets=[assets.features(spec.name)])
    def features(model: str) -> int:
        """Compute the features of the windows that passed; fails naming those that did not."""
        from include.stages import features as stage
        from include.stages import validation

        spec, parts = _open(model)
        windows, records = _windows(spec), parts.records(spec)
        built = stage.build(spec, windows, parts.tables(spec), records, _run())
        if failed := validation.failed(windows, records):
            raise UserMistake(f"no features for {', '.join(failed)}: not validated with pass")
        return len(built)

    return features(spec.name)


# ---- <model>.train


@task(task_id="validate", pool="data")
def check_windows(model: str) -> dict[str, str]:
    """Say why this training runs, and check that every window up to then has passed validation."""
    from include.stages import monitoring, validation
    from include.stages.sketching import window_of

    spec, parts = _open(model)
    asked, tables = _request(model), parts.tables(spec)
    if asked["request"]:
        _single(parts, model, asked["request"])
    as_of = parse(asked["as_of"]) if asked["as_of"] else monitoring.clock(tables, spec.window)
    if as_of is None:
        raise UserMistake(f"{model}: no window has landed yet; run {model}.data first")
    landed = [window_of(name, spec.window) for name in tables.windows("landed")]
    if failed := validation.failed([w for w in landed if w.end <= as_of], parts.records(spec)):
        raise UserMistake(f"{', '.join(failed)} did not pass validation; mend the source and run {model}.data for them")
    return {**asked, "as_of": as_of.isoformat()}


@task(task_id="features", pool="data")
def assemble(model: str, asked: dict[str, str]) -> Ref:
    """Fit the encoding on the training windows alone and write the dataset."""
    from include.stages import assembly

    spec, parts = _open(model)
    folder = parts.run_folder(spec, _run()) / "dataset"
    return asdict(assembly.assemble(spec, parse(asked["as_of"]), parts.tables(spec), _run(), folder))


def train(spec: ModelSpec, dataset: Any) -> Any:
    """The task `train`, which may take as long as the spec says."""

    @task(task_id="train", pool="training", execution_timeout=spec.training.timeout)
    def train_challenger(model: str, dataset: Ref) -> Ref:
        """Train the spec's model under torchrun; a retry resumes from the last checkpoint."""
        spec, parts = _open(model)
        return asdict(_train(spec, parts, dataset, spec.model.family))

    return train_challenger(spec.name, dataset)


def train_baselines(spec: ModelSpec, dataset: Any) -> Any:
    """The task `baselines`."""

    @task(task_id="baselines", pool="training", execution_timeout=spec.training.timeout)
    def train_each(model: str, dataset: Ref) -> dict[str, Ref]:
        """Train the baselines of the gates on the same rows."""
        spec, parts = _open(model)
        return {family: asdict(_train(spec, parts, dataset, family)) for family in spec.gates.baselines}

    return train_each(spec.name, dataset)


@task(pool="data")
def evaluate(model: str, dataset: Ref, challenger: Ref, baselines: dict[str, Ref]) -> Ref:
    """Score the same test rows with challenger, champion and baselines."""
    from include.ports import Reference
    from include.stages import evaluation

    spec, parts = _open(model)
    models = {"challenger": Reference(**challenger), **{f: Reference(**r) for f, r in baselines.items()}}
    champion = parts.registry().alias(model, "champion")
    folder = parts.run_folder(spec, _run())
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
def gate(model: str, evidence: Ref) -> Ref:
    """Serve the challenger to a thousand test rows and judge it; one that fails ends here, its reasons on record."""
    from include.ports import Reference
    from include.stages import card, evaluation, promotion, rehearsal

    spec, parts = _open(model)
    known = Reference(**evidence)
    measured = rehearsal.rehearse(spec, known, tables=parts.tables(spec), scorer=parts.scorer(), probe=parts.probe())
    judged = evaluation.judge(spec, known, measured)
    pages = card.write(known, judged)
    promotion.publish(model, known, judged, pages, registry=parts.registry(), ledger=parts.ledger())
    if not spec.gates.dry_run:
        settle(judged.verdict)
    return asdict(judged.record)


@task(pool="serving")
def register(model: str, evidence: Ref, verdict: Ref) -> dict[str, str]:
    """Register the version with its evidence; registering twice gives one version."""
    from include.ports import Reference
    from include.stages import card, evaluation, promotion

    _, parts = _open(model)
    judged = evaluation.judged(Reference(**verdict))
    version = promotion.register(model, Reference(**evidence), judged, registry=parts.registry(), ledger=parts.ledger())
    page = str(card.markdown_of(Reference(**evidence)))
    return {"version": version.number, "outcome": judged.verdict.outcome, "card": page}


def release(spec: ModelSpec, registered: Any, answer: Any) -> Any:
    """The task `release`: an approved version goes to the rollout, a rejected one keeps its reasons."""

    @task(task_id="release", pool="serving", outlets=[assets.challenger(spec.name)])
    def release_version(model: str, registered: dict[str, str], answer: dict[str, Any]) -> Any:
        """Record who answered and what; approval starts the rollout."""
        from include.stages import promotion

        _, parts = _open(model)
        version, reason = registered["version"], (answer["params_input"] or {}).get("reason")
        by = str((answer.get("responded_by_user") or {}).get("name") or "nobody in time")
        kept = {"registry": parts.registry(), "ledger": parts.ledger()}
        if answer["chosen_options"] != ["Approve"]:
            promotion.reject(model, version, [reason or "no reason was given"], by, datetime.now(UTC), **kept)
            raise AirflowSkipException(f"version {version} was rejected by {by}: {reason or 'no reason was given'}")
        promotion.approve(model, version, by, datetime.now(UTC), **kept)
        yield Metadata(assets.challenger(model), extra={"version": version, "approved_by": by})

    return release_version(spec.name, registered, answer)


# ---- <model>.rollout


@task(task_id="begin", pool="serving")
def begin_rollout(model: str) -> str:
    """Make the approved version the challenger and wait until the canary slot serves it."""
    from include.stages import rollout

    spec, parts = _open(model)
    version = str(_event_extra()["version"])
    kept = {"registry": parts.registry(), "slots": parts.slots()}
    rollout.begin(spec, parts.controls(), version, **kept, run=_run(), now=datetime.now(UTC))
    return version


@task(pool="serving", trigger_rule="none_failed")
def promote(model: str) -> str:
    """The challenger becomes champion; the stable slot takes it over, and all traffic goes there."""
    from include.stages import rollout

    spec, parts = _open(model)
    return rollout.promote(spec, parts.controls(), parts.registry(), parts.slots())


@task(pool="serving", trigger_rule="one_failed")
def roll_back(model: str) -> str:
    """Send all traffic back to the champion, where a failed guard has not done so already, and close the record."""
    from include.stages import rollout, rollout_state

    _, parts = _open(model)
    controls = parts.controls()
    state = rollout_state.load(controls.folder, model)
    if state is None or state.run != _run():
        raise AirflowSkipException("this run began no rollout, so traffic is as it was")
    if state.active:
        rollout.rollback(model, controls, "a step of the rollout failed; see its log in Airflow")
    return rollout.close(model, controls, parts.registry())


# ---- <model>.watch


@task(pool="serving")
def sense(model: str) -> Ref:
    """Read every signal of production; the record of what was seen."""
    from include.stages import monitoring, observation

    spec, parts = _open(model)
    look = monitoring.sense(spec, tables=parts.tables(spec), signals=parts.signals(), registry=parts.registry())
    for signal in look.signals:
        print(f"{signal.state:<8} {signal.name:<17} {signal.sentence}")  # noqa: T201 - the task's log is read by people
    return asdict(observation.keep(look, parts.watch_folder(spec) / f"{_run()}.json"))


@task(pool="serving")
def decide(model: str, seen: Ref) -> dict[str, Any]:
    """Retrain or not, and why; a row in the ledger either way."""
    from include.ports import Reference
    from include.stages import monitoring, observation

    spec, parts = _open(model)
    ti = get_current_context()["ti"]
    running = ti.get_dr_count(dag_id=f"{model}.train", states=["running", "queued"])
    paused = model in str(Variable.get("retraining_paused", default="")).replace(",", " ").split()
    decision = monitoring.decide_and_record(
        spec, observation.kept(Reference(**seen)), parts.ledger(), run=_run(),
        running=f"{model}.train" if running else None, paused=paused)  # fmt: skip
    return asdict(decision)


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


# ---- what they share


def _open(model: str) -> tuple[ModelSpec, "Parts"]:
    from include import wiring

    return find(model), wiring.parts()


def _run() -> str:
    """The run's id as a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(get_current_context()["run_id"]))


def _windows(spec: ModelSpec) -> list[Window]:
    """The windows of this run: the range asked for, or the run's own data interval."""
    context = get_current_context()
    start, end = (context["params"].get(name) for name in RANGE)
    if bool(start) != bool(end):
        raise UserMistake("give both start and end, or neither")
    if start and end:
        span = Window(parse(start), parse(end))
    elif context.get("data_interval_start") and context["data_interval_start"] < context["data_interval_end"]:
        span = Window(
            parse(context["data_interval_start"].isoformat()), parse(context["data_interval_end"].isoformat())
        )
    else:
        raise UserMistake("this run has no window of its own: trigger it with start and end, or backfill the range")
    return list(span.split(spec.window))


def _request(model: str) -> dict[str, Any]:
    """Why this training runs: the watch's event, or what a person or the schedule gave."""
    context = get_current_context()
    extra = _event_extra()
    if "request" in extra:
        return {"cause": extra["sentence"], "request": extra["request"], "as_of": None}
    scheduled = str(context["run_id"]).startswith("scheduled__")
    cause = "its schedule" if scheduled else context["params"]["cause"]
    return {"cause": cause, "request": None, "as_of": context["params"]["as_of"]}


def _event_extra() -> dict[str, Any]:
    """The extra of the newest asset event that started this run; empty when none did."""
    events = get_current_context()["triggering_asset_events"]
    newest = [event for name in events for event in events[name]]
    return dict(newest[-1].extra) if newest else {}


def _single(parts: "Parts", model: str, request: str) -> None:
    """One training a request: a second run for it, after a replayed event, is skipped."""
    ledger = parts.ledger()
    taken = [row["run"] for row in ledger.read(model, "requested") if row["request"] == request]
    if taken and taken[0] != _run():
        raise AirflowSkipException(f"request {request} is run {taken[0]} already")
    if not taken:
        ledger.append(model, "requested", request=request, run=_run())


def _train(spec: ModelSpec, parts: "Parts", dataset: Ref, family: Any) -> "Reference":
    from include.ports import Reference
    from include.stages import training

    cause = get_current_context()["ti"].xcom_pull(task_ids="validate")["cause"]
    return training.train(
        spec, Reference(**dataset), parts.run_folder(spec, _run()), parts.launcher(),
        family=family, tracking_url=parts.settings.mlflow_url, tags={"cause": cause})  # fmt: skip
