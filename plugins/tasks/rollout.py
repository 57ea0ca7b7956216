"""Tasks of `<model>.rollout`, but for the steps, which are operators."""

from datetime import UTC, datetime

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from plugins.run import event_extra, open_model, run_name


@task(task_id="begin", pool="serving")
def begin_rollout(model: str) -> str:
    """Make the approved version the challenger and wait until the canary slot serves it."""
    from include.stages import rollout

    spec, parts = open_model(model)
    version = str(event_extra()["version"])
    kept = {"registry": parts.registry(), "slots": parts.slots()}
    rollout.begin(spec, parts.controls(), version, **kept, run=run_name(), now=datetime.now(UTC))
    return version


@task(pool="serving", trigger_rule="none_failed")
def promote(model: str) -> str:
    """The challenger becomes champion; the stable slot takes it over, and all traffic goes there."""
    from include.stages import rollout

    spec, parts = open_model(model)
    return rollout.promote(spec, parts.controls(), parts.registry(), parts.slots())


@task(pool="serving", trigger_rule="one_failed")
def roll_back(model: str) -> str:
    """Send all traffic back to the champion, where a failed guard has not done so already, and close the record."""
    from include.stages import rollout, rollout_state

    _, parts = open_model(model)
    controls = parts.controls()
    state = rollout_state.load(controls.folder, model)
    if state is None or state.run != run_name():
        raise AirflowSkipException("this run began no rollout, so traffic is as it was")
    if state.active:
        rollout.rollback(model, controls, "a step of the rollout failed; see its log in Airflow")
    return rollout.close(model, controls, parts.registry())
