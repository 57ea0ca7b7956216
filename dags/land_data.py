"""Land one window of raw rows, validate it and build its features.

Runs once a window. Backfill it for new windows; or trigger it with `start` and `end` to land a long range in one run.
Running a window again replaces exactly that window. Beside it, what the model servers have logged moves into tables.
"""

from airflow.sdk import DAG

from plugins.dag_settings import common, every_window, specs
from plugins.tasks import data as tasks

for spec in specs():
    with DAG(
        f"{spec.name}.data",
        schedule=every_window(spec),
        end_date=spec.schedule.end,
        params=tasks.RANGE,
        **common(spec, __doc__, max_active_runs=4),
    ):
        tasks.land(spec.name) >> tasks.validate(spec.name) >> tasks.build_features(spec)
        tasks.compact(spec.name)
