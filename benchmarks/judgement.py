"""What the judges get right and wrong on worlds whose truth is known: `python benchmarks/judgement.py [--section gates]`.

Seeds are fixed. The last line is one JSON object: per section the figures, their bounds and whether they hold.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SECTIONS = ("gates", "canary", "watch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", choices=SECTIONS, action="append", help="all when left out; may be repeated")
    asked = parser.parse_args().section or SECTIONS
    found = {name: importlib.import_module(f"benchmarks.judgement_{name}").section() for name in asked}
    holds = all(all(section["holds"].values()) for section in found.values())
    print(json.dumps({"bench": "judgement", "sections": found, "holds": holds}, default=lambda value: value.item()))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
