"""Run a benchmark: `python -m benchmarks NAME [options]`, as `make bench-NAME` does. Its last line is one JSON object."""

import importlib
import sys

#: The module of each benchmark by the name on the command line.
BENCHMARKS = {
    "features": "benchmarks.features.features",
    "gateways": "benchmarks.serving.gateways",
    "gpu": "benchmarks.training.gpu",
    "judgement": "benchmarks.judgement",
    "quality": "benchmarks.training.quality",
    "rollout": "benchmarks.rollout.rollout",
    "serve": "benchmarks.serving.serve",
    "train": "benchmarks.training.train",
    "watch": "benchmarks.monitoring.watch",
}


def main() -> int:
    """Run the named benchmark and return its exit code, which is 2 if no benchmark has that name."""
    name, *options = sys.argv[1:] or [""]
    if name not in BENCHMARKS:
        print(f"there is no benchmark named {name!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    sys.argv = [f"benchmarks {name}", *options]
    return int(importlib.import_module(BENCHMARKS[name]).main() or 0)


if __name__ == "__main__":
    sys.exit(main())
