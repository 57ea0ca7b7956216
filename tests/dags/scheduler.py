"""Airflow's commands and its scheduler over a database of their own, with the tasks run in this process: a program for tests.

`python -m tests.dags.scheduler RESULT COMMAND…` reads the DAG files, runs each COMMAND as `airflow COMMAND` would, lets the
scheduler work until nothing is left to do, and writes to the file RESULT what became of every run.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.cli import cli_parser
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job, run_job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.sdk.execution_time.supervisor import run_task_in_process
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select

POOLS = ("data", "training", "serving")
#: Rounds of the scheduler in which nothing happens, after which nothing more will.
IDLE_ROUNDS = 5


class InProcessExecutor(BaseExecutor):
    """Runs each task here and now, one after another."""

    def __init__(self, bag: BundleDagBag) -> None:
        super().__init__(parallelism=1)
        self.bag = bag

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            key = workload.ti.key
            self.queued_tasks.pop(key, None)
            self.running.add(key)
            outcome = run_task_in_process(workload.ti, self.bag.dags[key.dag_id].task_dict[key.task_id])
            (self.fail if outcome.error else self.success)(key)

    def end(self) -> None:
        """Do nothing: no task outlives the call that ran it."""


def read_dags() -> BundleDagBag:
    """Read the DAG files as the DAG processor does, into the database."""
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    (bundle,) = manager.get_all_dag_bundles()
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert not bag.import_errors, bag.import_errors
    sync_bag_to_db(bag, bundle.name, bundle.version)
    return bag


def runs() -> list[dict[str, Any]]:
    """Return kind, state, start of the window and states of the tasks of every run."""
    with create_session() as session:
        return [
            {
                "dag": run.dag_id,
                "type": run.run_type,
                "state": run.state,
                "start": run.data_interval_start and run.data_interval_start.isoformat(),
                "tasks": {ti.task_id: ti.state for ti in run.get_task_instances(session=session)},
            }
            for run in session.scalars(select(DagRun).order_by(DagRun.id))
        ]


def main(result: str, *commands: str) -> None:
    """Run the commands, then the scheduler, and write what became of every run."""
    initdb()
    for pool in POOLS:
        Pool.create_or_update_pool(pool, slots=1, description="", include_deferred=False)
    bag, parser = read_dags(), cli_parser.get_parser()
    for command in commands:
        arguments = parser.parse_args(shlex.split(command))
        arguments.func(arguments)
    job = Job()
    runner = SchedulerJobRunner(job, num_runs=IDLE_ROUNDS, only_idle=True, executors=[InProcessExecutor(bag)])
    run_job(job=job, execute_callable=runner._execute)
    Path(result).write_text(json.dumps(runs()))


if __name__ == "__main__":
    main(*sys.argv[1:])
