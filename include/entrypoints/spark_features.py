"""What a cluster runs for a task: `jobs.py features <model> <start> <end> <run>`, submitted by Spark's operator."""

import argparse
import sys

from include import wiring
from include.domain.errors import PerennialError, UserMistake
from include.domain.windows import Window, parse_utc
from include.spec.loading import find
from include.stages.data import validation
from include.stages.features import features


def build(model: str, start: str, end: str, run: str) -> None:
    """The windows' features, on the session that Spark has started. Raises UserMistake naming windows that did not pass."""
    parts = wiring.parts()
    spec = find(model, parts.settings.models)
    windows, records = list(Window(parse_utc(start), parse_utc(end)).split(spec.window)), parts.records(spec)
    features.build(spec, windows, parts.tables(spec), records, run, engine=parts.engine(spec), store=parts.online(spec))
    if failed := validation.failed(windows, records):
        raise UserMistake(f"no features for {', '.join(failed)}: not validated with pass")


def main() -> int:
    parser = argparse.ArgumentParser(prog="jobs.py", description=__doc__)
    parser.add_argument("job", choices=["features"])
    for name in ("model", "start", "end", "run"):
        parser.add_argument(name)
    given = parser.parse_args()
    try:
        build(given.model, given.start, given.end, given.run)
    except PerennialError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
