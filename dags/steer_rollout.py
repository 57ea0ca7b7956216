"""Pause, resume, promote or abort the running rollout, roll the traffic back, or restore the previous champion.

Trigger it and choose the action; a running rollout follows at its next analysis, a second later. Who asked is recorded.
"""

from airflow.sdk import DAG

from plugins.dag_settings import common, specs
from plugins.tasks import rollout as tasks

for spec in specs():
    with DAG(
        f"{spec.name}.steer",
        schedule=None,
        is_paused_upon_creation=False,
        params=tasks.ACTION_PARAMS,
        **common(spec, __doc__),
    ):
        tasks.steer(spec.name)
