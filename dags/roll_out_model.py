"""Roll the challenger out: mirrored traffic first, then growing shares of live traffic, each judged against the champion.

A guard that fails sends all traffic back to the champion at once. `champion` moves only after the last step held.
"""

from airflow.sdk import DAG, chain

from plugins import assets
from plugins.dag_settings import common, specs
from plugins.operators import HoldStep
from plugins.tasks import rollout as tasks

for spec in specs():
    with DAG(
        f"{spec.name}.rollout",
        schedule=[assets.challenger(spec.name)],
        **common(spec, __doc__, max_active_runs=tasks.at_once(spec)),
    ):
        steps = HoldStep.each_of(spec)
        promoted = tasks.promote(spec.name)
        chain(tasks.begin_rollout(spec.name), *steps, promoted)
        [*steps, promoted] >> tasks.roll_back(spec.name)
