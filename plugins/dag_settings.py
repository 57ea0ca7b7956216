"""The arguments that all DAGs of a model share, and their schedules, read from the spec."""

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronDataIntervalTimetable, CronTriggerTimetable

from include.settings import from_env
from include.spec.loading import load_all
from include.spec.model_spec import ModelSpec
from plugins import assets, notifications
from plugins.outcome import RETRY_BY_CAUSE

UTC = "UTC"


def specs() -> list[ModelSpec]:
    """Return the valid specs; `dags/model_specs.py` shows the errors of the others."""
    return load_all(from_env().models)[0]


def common(spec: ModelSpec, doc: str | None, **own: Any) -> dict[str, Any]:
    """Return a DAG's arguments; `own` adds to those that all DAGs share, or overrides them."""
    return {
        "start_date": spec.schedule.start,
        "catchup": False,
        "max_active_runs": 1,
        "doc_md": f"{doc}\n\n**{spec.name}**: {spec.description}",
        "tags": ["perennial", spec.name, *spec.tags],
        "default_args": {
            "owner": spec.owner,
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "retry_policy": RETRY_BY_CAUSE,
            "execution_timeout": timedelta(hours=1),
            "on_failure_callback": notifications.of_failure(spec),
        },
        "dagrun_timeout": timedelta(days=2),
        **own,
    }


def every_window(spec: ModelSpec) -> CronDataIntervalTimetable:
    """Return the schedule of one run a data interval, so that backfills and the grid speak of windows."""
    return CronDataIntervalTimetable(spec.schedule.data, timezone=UTC)


def weekly_or_on_request(spec: ModelSpec) -> Any:
    """Return the schedule of a run whenever the watch asks for one, and by time where the spec names a time."""
    request = assets.retraining(spec.name)
    if spec.schedule.train is None:
        return [request]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(spec.schedule.train, timezone=UTC), assets=[request])


def every_few_minutes(spec: ModelSpec) -> CronTriggerTimetable | None:
    """Return the schedule of the watch; None where the spec leaves it to requests."""
    return CronTriggerTimetable(spec.schedule.watch, timezone=UTC) if spec.schedule.watch else None
