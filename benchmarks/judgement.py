"""Measure the error rates of the judges on simulated worlds whose truth is known: `make bench-judgement`, or
`python -m benchmarks judgement --section gates`.

Seeds are fixed. The last line is one JSON object: per section the figures, their bounds and whether they hold.
"""

import argparse
import importlib
import json

SECTIONS = {
    "gates": "benchmarks.evaluation.gate_errors",
    "canary": "benchmarks.rollout.canary_errors",
    "watch": "benchmarks.monitoring.watch_errors",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", choices=SECTIONS, action="append", help="all when left out; may be repeated")
    chosen = parser.parse_args().section or SECTIONS
    sections = {name: importlib.import_module(SECTIONS[name]).section() for name in chosen}
    holds = all(all(section["holds"].values()) for section in sections.values())
    print(json.dumps({"bench": "judgement", "sections": sections, "holds": holds}, default=lambda value: value.item()))
    return 0 if holds else 1
