"""The choice of cores for the serving path, which nginx's worker_cpu_affinity makes for its workers.

A stable server can keep one core busy. Where the gateway and the canary take turns on it, its answers wait for them, and near
the limit the slowest wait longest (docs/serving.md, "Speed").
"""

import os
import shutil

from include.settings import Settings


def pinned(settings: Settings, name: str) -> list[str]:
    """Return the words to put before a command of the serving path: each stable server gets a core of its own, the rest share.

    It is empty where there are too few cores for that.
    """
    cores, stable = sorted(os.sched_getaffinity(0)), list(settings.slot_servers("stable"))
    taskset, others = shutil.which("taskset"), cores[len(stable) :]
    if taskset is None or not others:
        return []
    own = [cores[stable.index(name)]] if name in stable else others
    return [taskset, "--cpu-list", ",".join(map(str, own))]
