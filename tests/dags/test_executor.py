"""A killed worker must not leave a scheduler that looks healthy and runs nothing."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from include.settings import ROOT

SCHEDULER = """
import time
from plugins.executor import Executor
executor = Executor(parallelism=2)
executor.start()
print(next(iter(executor.workers)), flush=True)
while True:
    executor.sync()
    time.sleep(0.05)
"""


def test_a_killed_worker_ends_the_scheduler_and_its_other_workers(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", SCHEDULER], env=surroundings, start_new_session=True,
                          stdout=subprocess.PIPE, text=True) as scheduler:  # fmt: skip
        assert scheduler.stdout is not None
        try:
            os.kill(int(next(line for line in scheduler.stdout if line.strip().isdigit())), signal.SIGKILL)
            scheduler.communicate(timeout=30)  # returns when the last of the group, which all hold the pipe, has ended
            assert scheduler.returncode == -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(scheduler.pid, signal.SIGKILL)
