"""The tasks of a search in `<model>.train`, only where the spec asks for one: rounds of mapped trainings, then the best."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from airflow.sdk import task

from include.domain.errors import UserMistake
from include.spec.model_spec import ModelSpec
from plugins.run import XComReference, checked, open_model, run_name, synced_run_folder, warm_start_artifact

#: A training that is done, as XCom carries it: `settings`, `logloss`, `result`.
Told = Mapping[str, Any]


def train(spec: ModelSpec, dataset: Any) -> Any:
    """`suggest_1`, `attempt_1` (mapped), `suggest_2`, … and `train`, whose result is the best training."""
    search, told = spec.training.search, list[Any]()
    assert search is not None
    for n in range(1, search.rounds + 1):
        asked = suggest.override(task_id=f"suggest_{n}")(spec.name, [*told])
        dataset >> asked
        mapped = attempt.override(task_id=f"attempt_{n}", execution_timeout=spec.training.timeout)
        told.append(mapped.partial(model=spec.name, dataset=dataset).expand(settings=asked))
    return choose(spec.name, told)


@task(pool="data")
def suggest(model: str, told: list[Sequence[Told]]) -> list[dict[str, float]]:
    """What to try next, after what the rounds before have shown."""
    from include.stages.training import search

    spec, parts = open_model(model)
    if parts.settings.launcher == "kubernetes":
        raise UserMistake(
            f"{model}: training.search trains beside Airflow, not in pods; leave it out, or search locally"
        )
    return search.ask(spec, _attempts(told), parts.searcher())


@task(pool="training")
def attempt(model: str, dataset: XComReference, settings: dict[str, float]) -> dict[str, Any]:
    """Train with these settings; a retry resumes from the last checkpoint."""
    from include.artifacts.store import Reference
    from include.stages.training import search

    spec, parts = open_model(model)
    tags = {"cause": checked()["cause"], "search": "yes"}
    with synced_run_folder(spec, parts) as folder:
        return asdict(
            search.attempt(spec, settings, Reference(**dataset), folder, parts.launcher(), start=warm_start_artifact(spec, parts),
                           tracking_url=parts.settings.mlflow_url, tags=tags)
        )  # fmt: skip


@task(task_id="train", pool="training")
def choose(model: str, told: list[Sequence[Told]]) -> XComReference:
    """The training that did best on the validate windows."""
    from include.stages.training import search, training

    spec, parts = open_model(model)
    attempts = _attempts(told)
    results = [one.result for one in attempts]
    training.account(spec, results, checked()["as_of"], run_name(), parts.ledger())
    return asdict(search.best(attempts))


def _attempts(told: list[Sequence[Told]]) -> list[Any]:
    from include.stages.training.search import Attempt

    return [Attempt.of(one) for done in told for one in done[:]]  # a slice is one request
