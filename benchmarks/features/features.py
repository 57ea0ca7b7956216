"""Landing, validation and features of Criteo-shape rows: rows a second against plain pandas, time and memory by size.

`make bench-features`, or `python -m benchmarks features --quick` (half a million and a million rows); the last line is one JSON object
with the figures, the bounds and `"holds"`. Each measurement is a process of its own; on the smallest size ours and pandas' take turns
three times, and the one of middle duration counts.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.features.data import Counts, generate
from include.settings import ROOT
from include.spec.data import SourceSpec
from include.spec.loading import find
from include.spec.model_spec import ModelSpec

TURNS = 3
ROWS, QUICK = (1_000_000, 3_000_000, 10_000_000), (500_000, 1_000_000)
BOUNDS = {"times_pandas": 5.0, "peak_gb": 4.0, "linear": 1.3, "flat": 1.5}


def ours(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    """All three stages over the folder's days."""
    from include.adapters.engines.duckdb import DuckDB
    from include.adapters.sources.files import FileSource
    from include.adapters.tables.delta import DeltaTables
    from include.adapters.tables.json_records import JsonRecords
    from include.adapters.validation.great_expectations import GreatExpectations
    from include.artifacts.windows import BuiltWindow
    from include.domain.windows import window_of
    from include.online_store.opening import open_store
    from include.stages.data import landing, validation
    from include.stages.features import features
    from include.stages.features.features import FeatureServices

    tables, records = DeltaTables(home / "tables"), JsonRecords(home / "records")
    windows = [window_of(file.stem, spec.window) for file in sorted(folder.glob("*.tsv"))]
    report = landing.land(spec, windows, FileSource(spec.source, home), tables, records, "run")
    validation.validate(spec, windows, tables, GreatExpectations(spec, home / "pages"), records, "run")
    services = FeatureServices(tables, records, DuckDB(), open_store(str(home), spec.name))
    built = [records.read(BuiltWindow, label) for label in features.build(spec, windows, services, "run")]
    rows = sum(window.rows for window in built if window)
    return Counts(report.read, report.landed, report.quarantined, report.duplicates, rows)


def pandas(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    from benchmarks.features.pandas_baseline import work

    return work(spec, folder, home)


def measured(work: str, folder: Path) -> dict[str, Any]:
    """What this process needs for it: seconds, those of all its cores together, and the peak of its memory in GB."""
    known = find("clicks")
    spec = known.model_copy(update={"source": SourceSpec(path=str(folder / "{window:%Y-%m-%d}.tsv"), format="tsv")})
    import great_expectations  # noqa: F401  # its import takes seconds, and counts for nobody

    with tempfile.TemporaryDirectory() as home:
        begun, busy = time.perf_counter(), time.process_time()
        counts = {"ours": ours, "pandas": pandas}[work](spec, folder, Path(home))
        seconds, core_seconds = time.perf_counter() - begun, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "core_seconds": core_seconds, "peak_gb": peak, "counts": asdict(counts)}


def apart(work: str, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks", "features", "--work", work, str(folder)],
        check=True,
        text=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GX_ANALYTICS_ENABLED": "false"},
    )
    return dict(json.loads(said.stdout.splitlines()[-1]))


def of_size(rows: int, *, beside: bool) -> dict[str, Any]:
    """Ours on so many rows and, `beside` it, pandas; raises AssertionError where they do not agree on what became of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), rows)
        turns = TURNS if beside else 1
        runs = [(apart("ours", Path(folder)), apart("pandas", Path(folder)) if beside else None) for _ in range(turns)]
        found = _middle(own for own, _ in runs)
        print(f"{rows:>10,} rows: {found['seconds']:.1f} s, {found['peak_gb']:.2f} GB", flush=True)
        found["rows_per_core_second"] = rows / found["core_seconds"]
        if beside:
            other = found["pandas"] = _middle(run for _, run in runs if run)
            print(f"    pandas: {other['seconds']:.1f} s, {other['peak_gb']:.2f} GB", flush=True)
            assert found["counts"] == other["counts"], f"{found['counts']}, pandas {other['counts']}"
    return found


def _middle(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The one of middle duration."""
    ordered = sorted(runs, key=lambda run: float(run["seconds"]))
    return ordered[len(ordered) // 2]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="fewer rows")
    arguments.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.work:
        print(json.dumps(measured(given.work[0], Path(given.work[1]))))
        return
    sizes = QUICK if given.quick else ROWS
    found = {rows: of_size(rows, beside=rows == sizes[0]) for rows in sizes}
    least, most = found[sizes[0]], found[sizes[-1]]
    figures = {
        "times_pandas": least["pandas"]["seconds"] / least["seconds"],
        "peak_gb": most["peak_gb"],
        "linear": most["seconds"] / sizes[-1] / (least["seconds"] / sizes[0]),
        "flat": most["peak_gb"] / least["peak_gb"],
    }
    holds = all(value >= BOUNDS[n] if n == "times_pandas" else value <= BOUNDS[n] for n, value in figures.items())
    print(json.dumps({"figures": {**figures, **found}, "bounds": BOUNDS, "holds": holds}))
