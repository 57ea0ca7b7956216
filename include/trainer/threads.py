"""How many threads do arithmetic.

Every operation waits for its slowest thread, so a thread without a core of its own stops all others: beside a busy
neighbour on two cores, two threads trained at a twentieth of the speed of one (measured). Half the cores is what a
machine shared with schedulers and servers can spare; `training.threads` takes more where there is nobody else.
"""

import os
from collections.abc import Mapping

from include.trainer.job import Training


def threads(plan: Training, environ: Mapping[str, str] = os.environ) -> int:
    """Of one process of this machine, at least 1."""
    neighbours = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0))
    return plan.threads or max(1, cores // 2 // neighbours)
