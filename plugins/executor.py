"""The LocalExecutor, except that a worker killed at a bad moment does not stop all work for good."""

import os
import signal

from airflow.executors.local_executor import LocalExecutor


class Executor(LocalExecutor):
    """Ends the scheduler's process group when a worker was killed; whoever supervises the scheduler starts it again.

    A worker waits for work with the lock of the workers' queue in its hands. Killed there it takes the lock along, and no
    other worker, new ones included, ever reads the queue again, while the scheduler reports itself healthy.
    """

    def sync(self) -> None:
        ends = {pid: -worker.exitcode for pid, worker in self.workers.items() if (worker.exitcode or 0) < 0}
        killed = [pid for pid, by in ends.items() if by != signal.SIGTERM]  # by which the whole group is asked to stop
        if killed:
            self.log.critical("worker %s was killed, so the scheduler starts anew", ", ".join(map(str, killed)))
            os.killpg(0, signal.SIGKILL)
        super().sync()
