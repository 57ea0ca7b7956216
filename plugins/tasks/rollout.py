"""Tasks of `<model>.steer` and of `<model>.rollout`, whose steps are operators."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.sdk import Param, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from include.domain.rollout.actions import RolloutAction
from include.spec.model_spec import ModelSpec
from plugins.current_run import event_extra, open_model, run_name

if TYPE_CHECKING:
    from include.stages.rollout.state import RolloutState
    from include.wiring import Parts


@task(task_id="begin", pool="serving")
def begin_rollout(model: str) -> str:
    """Make the approved version the challenger and wait until the canary slot serves it."""
    from include.stages.rollout import rollout

    spec, parts = open_model(model)
    version, services, run = str(event_extra()["version"]), parts.rollout_services(), run_name()
    older = rollout.supersede(spec, services, version, run)
    if older:
        _attach_report(parts, older)
    state = rollout.begin(spec, services, version, run, datetime.now(UTC))
    if not state.first_release:
        for check in rollout.check_power(spec, services, run, datetime.now(UTC)).checks:
            print(f"the plan: {check.sentence}")  # noqa: T201 - the task's log is read by people
    return version


@task(pool="serving", trigger_rule="none_failed")
def promote(model: str) -> str:
    """Make the challenger champion; the stable slot takes it over, and all traffic goes there."""
    from include.stages.rollout import rollout

    spec, parts = open_model(model)
    state = rollout.promote(spec, parts.rollout_services(), run_name())
    _attach_report(parts, state)
    return state.version


ACTION_HELP = (
    "pause holds the step and its traffic as they are, unless a guard fails; promote passes this step and the rest; "
    "abort and roll back send all traffic to the champion"
)
ACTION_PARAMS = {
    "word": Param("pause", enum=[action.value for action in RolloutAction], description=ACTION_HELP),
    "reason": Param(None, type=["null", "string"], description="Why; recorded in the ledger"),
}


@task(pool="serving")
def steer(model: str) -> str:
    """Carry out what a person asks for, and record who asked."""
    from include.stages.rollout import actions

    _, parts = open_model(model)
    context = get_current_context()
    by = str(context["dag_run"].triggering_user_name or "Airflow")
    action, reason = RolloutAction(context["params"]["word"]), context["params"]["reason"] or ""
    return actions.perform(model, action, by, reason, services=parts.rollout_services(), now=datetime.now(UTC))


def max_active_runs(spec: ModelSpec) -> int:
    """Return how many rollouts Airflow lets in: a newer challenger waits in its queue, or comes in to supersede the older."""
    return 2 if spec.rollout.newer == "supersede" else 1


@task(pool="serving")
def roll_back(model: str) -> str:
    """Send all traffic to the champion where the rollout was not promoted and it is not back yet, and close the rollout."""
    from include.stages.rollout import rollout, state_file
    from include.stages.rollout.state import Phase

    _, parts = open_model(model)
    services = parts.rollout_services()
    state = state_file.load(services.folder, model)
    if state is None or state.run != run_name():
        raise AirflowSkipException("this run began no rollout, or another took its place, so traffic is not its own")
    if state.phase is Phase.PROMOTED:
        raise AirflowSkipException("promoted")
    if state.active:
        rollout.rollback(model, services, "its run in Airflow failed or was ended by a person; see its tasks")
    state = rollout.close(model, services)
    _attach_report(parts, state)
    return state.reason


def _attach_report(parts: "Parts", state: "RolloutState") -> None:
    from include.reports import rollout_page

    rollout_page.attach(state, parts.ledger(), parts.registry(), parts.rollout_folder())
