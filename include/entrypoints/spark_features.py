"""The program that a Spark driver runs for the task `features`: `spark_features.py features <model> <start> <end> <run>`."""

import argparse
import sys

from include import wiring
from include.domain.errors import PerennialError
from include.domain.windows import Window, parse_utc
from include.spec.loading import find
from include.stages.features import features


def build(model: str, start: str, end: str, run: str) -> None:
    """Compute the features of the windows from `start` to `end`, on the session that Spark has started.

    Raises UserMistake naming the windows that did not pass validation.
    """
    parts = wiring.parts()
    spec = find(model, parts.settings.models)
    windows, services = list(Window(parse_utc(start), parse_utc(end)).split(spec.window)), parts.feature_services(spec)
    features.build(spec, windows, services, run)
    features.check_complete(windows, services.records)


def main() -> int:
    """Run the job that the command line names; return its exit code."""
    parser = argparse.ArgumentParser(prog="spark_features.py", description=__doc__)
    parser.add_argument("job", choices=["features"])
    for name in ("model", "start", "end", "run"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    try:
        build(arguments.model, arguments.start, arguments.end, arguments.run)
    except PerennialError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
