"""Measure landing, validation and features of Criteo-shape rows: rows a second beside plain pandas, time and memory by size.

`make bench-features`, or `python -m benchmarks features --quick` (half a million and a million rows); the last line is one JSON object
with the figures, the bounds and `"holds"`. Each measurement is a process of its own. At the smallest size Perennial and
pandas take turns three times, and the run of median duration counts.
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

#: Runs of each implementation at the smallest size.
TURNS = 3
ROWS, QUICK = (1_000_000, 3_000_000, 10_000_000), (500_000, 1_000_000)
BOUNDS = {"times_pandas": 5.0, "peak_gb": 4.0, "linear": 1.3, "flat": 1.5}


def run_perennial(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    """Run all three stages over the folder's days, and count the rows."""
    from include.adapters.engines.duckdb import DuckDB
    from include.adapters.sources.files import FileSource
    from include.adapters.tables.delta import DeltaTables
    from include.adapters.tables.json_records import JsonRecords
    from include.adapters.validation.great_expectations import GreatExpectations
    from include.artifacts.window_records import BuiltWindow
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


def run_pandas(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    """Do the same work with pandas, and count the rows."""
    from benchmarks.features import pandas_baseline

    return pandas_baseline.run(spec, folder, home)


def measure(work: str, folder: Path) -> dict[str, Any]:
    """Do the work in this process; return its seconds, CPU seconds of all threads, peak memory in GB, and the counts."""
    shipped = find("clicks")
    spec = shipped.model_copy(update={"source": SourceSpec(path=str(folder / "{window:%Y-%m-%d}.tsv"), format="tsv")})
    import great_expectations  # noqa: F401  # its import takes seconds, which are not measured

    with tempfile.TemporaryDirectory() as home:
        started_at, cpu_started_at = time.perf_counter(), time.process_time()
        counts = {"ours": run_perennial, "pandas": run_pandas}[work](spec, folder, Path(home))
        seconds, core_seconds = time.perf_counter() - started_at, time.process_time() - cpu_started_at
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "core_seconds": core_seconds, "peak_gb": peak, "counts": asdict(counts)}


def measure_apart(work: str, folder: Path) -> dict[str, Any]:
    """Return what `measure` returns in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks", "features", "--work", work, str(folder)],
        check=True,
        text=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GX_ANALYTICS_ENABLED": "false"},
    )
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure_size(rows: int, *, with_pandas: bool) -> dict[str, Any]:
    """Return the figures on that many rows; raise AssertionError if pandas counts other rows landed, quarantined or built."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), rows)
        turns = TURNS if with_pandas else 1
        runs = [
            (measure_apart("ours", Path(folder)), measure_apart("pandas", Path(folder)) if with_pandas else None)
            for _ in range(turns)
        ]
        figures = _median_run(run for run, _ in runs)
        print(f"{rows:>10,} rows: {figures['seconds']:.1f} s, {figures['peak_gb']:.2f} GB", flush=True)
        figures["rows_per_core_second"] = rows / figures["core_seconds"]
        if with_pandas:
            other = figures["pandas"] = _median_run(run for _, run in runs if run)
            print(f"    pandas: {other['seconds']:.1f} s, {other['peak_gb']:.2f} GB", flush=True)
            assert figures["counts"] == other["counts"], f"{figures['counts']}, pandas {other['counts']}"
    return figures


def _median_run(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median duration."""
    ordered = sorted(runs, key=lambda run: float(run["seconds"]))
    return ordered[len(ordered) // 2]


def main() -> None:
    """Measure all sizes and print the figures, or only one in this process, as `measure_apart` asks with `--work`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(measure(options.work[0], Path(options.work[1]))))
        return
    sizes = QUICK if options.quick else ROWS
    by_size = {rows: measure_size(rows, with_pandas=rows == sizes[0]) for rows in sizes}
    smallest, largest = by_size[sizes[0]], by_size[sizes[-1]]
    figures = {
        "times_pandas": smallest["pandas"]["seconds"] / smallest["seconds"],
        "peak_gb": largest["peak_gb"],
        "linear": largest["seconds"] / sizes[-1] / (smallest["seconds"] / sizes[0]),
        "flat": largest["peak_gb"] / smallest["peak_gb"],
    }
    holds = all(value >= BOUNDS[n] if n == "times_pandas" else value <= BOUNDS[n] for n, value in figures.items())
    print(json.dumps({"figures": {**figures, **by_size}, "bounds": BOUNDS, "holds": holds}))
