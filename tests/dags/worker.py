"""What a worker gives to a task that it runs: the context of the run, without Airflow's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from airflow.sdk import Context
from airflow.sdk.execution_time.context import set_current_context


@contextmanager
def run_of(run_id: str, **context: Any) -> Iterator[Context]:
    """Run the tasks within as those of that run; only what the test gives is in their context."""
    present = cast("Context", {"run_id": run_id, **context})
    with set_current_context(present):
        yield present
