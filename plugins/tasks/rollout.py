"""Tasks of `<model>.rollout`, but for the steps, which are operators."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.sdk import Param, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from include.domain.rollout.actions import Word
from include.spec.model_spec import ModelSpec
from plugins.run import event_extra, open_model, run_name

if TYPE_CHECKING:
    from include.stages.rollout.state import State
    from include.wiring import Parts


@task(task_id="begin", pool="serving")
def begin_rollout(model: str) -> str:
    """Make the approved version the challenger and wait until the canary slot serves it."""
    from include.stages.rollout import rollout

    spec, parts = open_model(model)
    version, controls = str(event_extra()["version"]), parts.controls()
    older = rollout.supersede(spec, controls, version, parts.registry(), run_name())
    if older:
        _attach_report(parts, older)
    kept = {"registry": parts.registry(), "slots": parts.slots()}
    state = rollout.begin(spec, controls, version, **kept, run=run_name(), now=datetime.now(UTC))
    if not state.first_release:
        for check in rollout.weigh(spec, controls, run_name(), datetime.now(UTC)).checks:
            print(f"the plan: {check.sentence}")  # noqa: T201 - the task's log is read by people
    return version


@task(pool="serving", trigger_rule="none_failed")
def promote(model: str) -> str:
    """The challenger becomes champion; the stable slot takes it over, and all traffic goes there."""
    from include.stages.rollout import rollout

    spec, parts = open_model(model)
    state = rollout.promote(spec, parts.controls(), run_name(), parts.registry(), parts.slots())
    _attach_report(parts, state)
    return state.version


SAID = (
    "pause holds the step and its traffic as they are, unless a guard fails; promote passes this step and the rest; "
    "abort and roll back send all traffic to the champion"
)
WORDS = {
    "word": Param("pause", enum=[word.value for word in Word], description=SAID),
    "reason": Param(None, type=["null", "string"], description="Why; kept in the ledger"),
}


@task(pool="serving")
def steer(model: str) -> str:
    """Do what a person says, and keep who said it."""
    from include.stages.rollout import actions

    _, parts = open_model(model)
    context = get_current_context()
    by = str(context["dag_run"].triggering_user_name or "Airflow")
    word, reason = context["params"]["word"], context["params"]["reason"] or ""
    kept = {"controls": parts.controls(), "registry": parts.registry()}
    return actions.obey(model, Word(word), by, reason, **kept, now=datetime.now(UTC))


def at_once(spec: ModelSpec) -> int:
    """A newer challenger waits in Airflow's queue, or comes in to supersede the older one."""
    return 2 if spec.rollout.newer == "supersede" else 1


@task(pool="serving")
def roll_back(model: str) -> str:
    """Where the rollout did not end in a promotion: all traffic to the champion, unless it is back already; close the record."""
    from include.stages.rollout import rollout
    from include.stages.rollout import state as rollout_state

    _, parts = open_model(model)
    controls = parts.controls()
    state = rollout_state.load(controls.folder, model)
    if state is None or state.run != run_name():
        raise AirflowSkipException("this run began no rollout, or another took its place, so traffic is not its own")
    if state.phase is rollout_state.Phase.PROMOTED:
        raise AirflowSkipException("promoted")
    if state.active:
        rollout.rollback(model, controls, "its run in Airflow failed or was ended by a person; see its tasks")
    state = rollout.close(model, controls, parts.registry())
    _attach_report(parts, state)
    return state.reason


def _attach_report(parts: "Parts", state: "State") -> None:
    from include.reports import rollout_page

    rollout_page.attach(state, parts.ledger(), parts.registry(), parts.controls().folder)
