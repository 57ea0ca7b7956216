"""A killed worker must not leave a scheduler that looks healthy and runs nothing."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from include.settings import ROOT

SCHEDULER = """
import os, sys, time
from plugins.executor import Executor
executor = Executor(parallelism=2)
executor.start()
os.write(int(sys.argv[1]), str(next(iter(executor.workers))).encode())
while True:
    executor.sync()
    time.sleep(0.05)
"""


def test_a_killed_worker_ends_the_scheduler_and_its_other_workers(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path)}
    reading, writing = os.pipe()  # of its own: on the output the workers' log can come between
    with subprocess.Popen(
        [sys.executable, "-c", SCHEDULER, str(writing)],
        env=surroundings,
        start_new_session=True,
        stdout=subprocess.PIPE,
        pass_fds=[writing],
        text=True,
    ) as scheduler:
        os.close(writing)
        try:
            os.kill(int(os.read(reading, 20)), signal.SIGKILL)
            scheduler.communicate(timeout=30)  # returns when the last of the group, which all hold the pipe, has ended
            assert scheduler.returncode == -signal.SIGKILL
        finally:
            os.close(reading)
            with suppress(ProcessLookupError):
                os.killpg(scheduler.pid, signal.SIGKILL)
