"""Measure the error rates of the gates, the canary's judge and the watch on simulated data whose truth is chosen beforehand.

`make bench-judgement` runs all sections; `python -m benchmarks judgement --section gates` runs one.

Seeds are fixed. The last line is one JSON object: per section the figures, their bounds and whether they hold.
"""

import argparse
import importlib
import json

#: The sections by name, and the module that measures each in its function `section`.
SECTIONS = {
    "gates": "benchmarks.evaluation.gate_errors",
    "canary": "benchmarks.rollout.canary_errors",
    "watch": "benchmarks.monitoring.watch_errors",
}


def main() -> int:
    """Run the chosen sections, print their figures, and return 0 if all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", choices=SECTIONS, action="append", help="all when left out; may be repeated")
    chosen = parser.parse_args().section or SECTIONS
    sections = {name: importlib.import_module(SECTIONS[name]).section() for name in chosen}
    holds = all(all(section["holds"].values()) for section in sections.values())
    print(json.dumps({"bench": "judgement", "sections": sections, "holds": holds}, default=lambda value: value.item()))
    return 0 if holds else 1
