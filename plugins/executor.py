"""A LocalExecutor that a worker killed at a bad moment does not stop for good."""

import os
import signal

from airflow.executors.local_executor import LocalExecutor


class Executor(LocalExecutor):
    """Ends the scheduler's process group when a worker was killed; whatever supervises the scheduler starts it again.

    A worker waits for work with the lock of the workers' queue in its hands. Killed there it takes the lock along, and no
    other worker, new ones included, ever reads the queue again, while the scheduler reports itself healthy.
    """

    def _check_workers(self) -> None:
        exit_codes = {pid: worker.exitcode for pid, worker in self.workers.items()}
        super()._check_workers()
        killed = [pid for pid, code in exit_codes.items() if self._was_killed(pid, code)]
        if killed:
            self.log.critical("worker %s was killed, so the scheduler starts anew", ", ".join(map(str, killed)))
            os.killpg(0, signal.SIGKILL)

    def _was_killed(self, pid: int, code: int | None) -> bool:
        """Return whether the worker ended otherwise than by itself or by SIGTERM, which asks the whole group to stop."""
        if code is None:  # it was alive before the check; how it ended since can no longer be read
            return pid not in self.workers
        return code < 0 and code != -signal.SIGTERM
