"""The LocalExecutor, except that a worker killed at a bad moment does not stop all work for good."""

import os
import signal

from airflow.executors.local_executor import LocalExecutor


class Executor(LocalExecutor):
    """Ends the scheduler's process group when a worker was killed; whoever supervises the scheduler starts it again.

    A worker waits for work with the lock of the workers' queue in its hands. Killed there it takes the lock along, and no
    other worker, new ones included, ever reads the queue again, while the scheduler reports itself healthy.
    """

    def _check_workers(self) -> None:
        ends = {pid: worker.exitcode for pid, worker in self.workers.items()}
        super()._check_workers()
        # By SIGTERM the whole group is asked to stop. How one ended that was alive above can no longer be read.
        killed = [pid for pid, code in ends.items()
                  if (pid not in self.workers if code is None else code < 0 and code != -signal.SIGTERM)]  # fmt: skip
        if killed:
            self.log.critical("worker %s was killed, so the scheduler starts anew", ", ".join(map(str, killed)))
            os.killpg(0, signal.SIGKILL)
