"""Roll the challenger out: mirrored traffic first, then growing shares of live traffic, each judged against the champion.

A guard that fails sends all traffic back to the champion at once. `champion` moves only after the last step held. `roll_back`
is a teardown: it runs at every end, also where a person marks the run or a step as failed, and does nothing after a promotion.
"""

from airflow.sdk import DAG, chain

from plugins import assets
from plugins.dag_settings import common, specs
from plugins.operators import RolloutStepOperator
from plugins.tasks import rollout as tasks

for spec in specs():
    with DAG(
        f"{spec.name}.rollout",
        schedule=[assets.challenger(spec.name)],
        # A pause may be long, and a run that times out would leave its traffic to nobody.
        **common(spec, __doc__, max_active_runs=tasks.max_active_runs(spec), dagrun_timeout=None),
    ):
        steps = RolloutStepOperator.for_plan(spec)
        back = tasks.roll_back(spec.name).as_teardown()
        chain(tasks.begin_rollout(spec.name), *steps, tasks.promote(spec.name), back)
