"""The tasks of a search in `<model>.train`, only where the spec asks for one: rounds of mapped trainings, then the best."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import task

from include.domain.errors import UserMistake
from include.spec.model_spec import ModelSpec
from plugins.current_run import XComReference, open_model, run_name, synced_run_folder, training_request, training_run

if TYPE_CHECKING:
    from include.stages.training.search import Trial

#: A finished training as XCom carries it: `settings`, `logloss`, `result`.
TrialDict = Mapping[str, Any]


def train(spec: ModelSpec, dataset: Any) -> Any:
    """Return the task `train`, whose result is the best training, behind `suggest_N` and mapped `attempt_N` of each round."""
    section, rounds = spec.training.search, list[Any]()
    assert section is not None
    for n in range(1, section.rounds + 1):
        settings = suggest.override(task_id=f"suggest_{n}")(spec.name, [*rounds])
        dataset >> settings
        mapped = attempt.override(task_id=f"attempt_{n}", execution_timeout=spec.training.timeout)
        rounds.append(mapped.partial(model=spec.name, dataset=dataset).expand(settings=settings))
    return choose(spec.name, rounds)


@task(pool="data")
def suggest(model: str, rounds: list[Sequence[TrialDict]]) -> list[dict[str, float]]:
    """Suggest the settings of the next round, after what the rounds before have shown."""
    from include.stages.training import search

    spec, parts = open_model(model)
    if parts.settings.launcher == "kubernetes":
        raise UserMistake(
            f"{model}: training.search trains beside Airflow, not in pods; leave it out, or search locally"
        )
    return search.suggest(spec, _trials(rounds), parts.searcher())


@task(pool="training")
def attempt(model: str, dataset: XComReference, settings: dict[str, float]) -> dict[str, Any]:
    """Train with these settings; a retry resumes from the last checkpoint."""
    from include.stages.training import search

    spec, parts = open_model(model)
    with synced_run_folder(spec, parts):
        run = training_run(spec, parts, dataset, warm_start=True, tags={"search": "yes"})
        return asdict(search.run_trial(spec, settings, run, parts.launcher()))


@task(task_id="train", pool="training")
def choose(model: str, rounds: list[Sequence[TrialDict]]) -> XComReference:
    """Choose the training that did best on the validate windows."""
    from include.stages.training import search, training

    spec, parts = open_model(model)
    trials = _trials(rounds)
    results = [trial.result for trial in trials]
    training.record_hours(spec, results, training_request().as_of, run_name(), parts.ledger())
    return asdict(search.best(trials))


def _trials(rounds: list[Sequence[TrialDict]]) -> list["Trial"]:
    from include.stages.training.search import Trial

    return [Trial.from_dict(trial) for finished in rounds for trial in finished[:]]  # a slice is one request
