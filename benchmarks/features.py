"""Landing, validation and features of Criteo-shape rows: rows a second against plain pandas, time and memory by size.

`python benchmarks/features.py [--rows 1000000 3000000 10000000]`; the last line is one JSON object with the figures, the
bounds and `"holds"`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START = date(2024, 1, 1)
A_DAY = 250_000
BOUNDS = {"times_pandas": 5.0, "peak_gb": 4.0, "linear": 1.3, "flat": 1.5}


def generate(folder: Path, rows: int) -> None:
    from include.local import clicks

    stream = clicks.Clicks()
    for n in range(-(-rows // A_DAY)):
        day = START + timedelta(days=n)
        clicks.deliver(folder, day, day + timedelta(days=1), min(A_DAY, rows - n * A_DAY), form="tsv", clicks=stream)


def ours(folder: Path) -> float:
    """Seconds for all three stages over the folder's days, imports not counted."""
    from include.adapters.delta import DeltaTables
    from include.adapters.duckdb import DuckDB
    from include.adapters.expectations import GreatExpectations
    from include.adapters.records import JsonRecords
    from include.adapters.sources import FileSource
    from include.domain.windows import Window, parse
    from include.online.store import open_store
    from include.spec import Source
    from include.specs import find
    from include.stages import features, landing, validation

    known = find("clicks")
    spec = known.model_copy(update={"source": Source(path=str(folder / "{window:%Y-%m-%d}.tsv"), format="tsv")})
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        at = Path(home)
        tables, records = DeltaTables(at / "tables"), JsonRecords(at / "records")
        starts = [parse(file.stem) for file in sorted(folder.glob("*.tsv"))]
        windows = [Window(start, start + timedelta(days=1)) for start in starts]
        landing.land(spec, windows, FileSource(spec.source, at), tables, records, "run")
        validation.validate(spec, windows, tables, GreatExpectations(spec, at / "pages"), records, "run")
        features.build(spec, windows, tables, records, "run", engine=DuckDB(), store=open_store(home, spec.name))
        return time.perf_counter() - begun


def pandas(folder: Path) -> float:
    """Seconds for the same work written plainly: read, type, quarantine, de-duplicate, judge, write both tables."""
    import pandas as pd

    from include.local.clicks import CATEGORIES, NUMBERS

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        seen: list[Any] = []
        for file in sorted(folder.glob("*.tsv")):
            raw = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
            rows = raw.replace("", None)
            at = pd.to_datetime(rows["time"], utc=True, errors="coerce", format="ISO8601")
            numbers = rows[list(NUMBERS)].apply(pd.to_numeric, errors="coerce")
            label = pd.to_numeric(rows["click"], errors="coerce")
            bad = (
                at.isna()
                | rows["id"].isna()
                | ~label.isin([0, 1])
                | (numbers.isna() & rows[list(NUMBERS)].notna()).any(axis=1)
            )
            typed = pd.concat([at, rows["id"], label, rows[list(CATEGORIES)], numbers], axis=1)[~bad]
            typed["window"] = typed["time"].dt.strftime("%Y-%m-%d")
            once = typed.drop_duplicates("id", keep="last").sort_values(["time", "id"])
            assert len(raw) == len(once) + int(bad.sum()) + int((~bad).sum() - len(once))
            assert once.isna().mean(numeric_only=False).max() < 0.9
            assert 0 < once["click"].mean() < 1
            fresh = [1 - once[c].isin(old[c].unique()).mean() for old in seen[-3:] for c in CATEGORIES]
            assert all(share < 1 for share in fresh)
            seen = [*seen[-2:], once[list(CATEGORIES)]]
            for table in ("landed", "features"):
                once.to_parquet(Path(home) / f"{table}-{file.stem}.parquet")
        return time.perf_counter() - begun


def apart(work: str, folder: Path) -> dict[str, float]:
    """Run the work in a process of its own; its seconds, and its peak memory in GB."""
    said = subprocess.run([sys.executable, __file__, "--work", work, str(folder)], check=True, text=True, cwd=ROOT,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "GX_ANALYTICS_ENABLED": "false"})  # fmt: skip
    return dict(json.loads(said.stdout.splitlines()[-1]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    arguments.add_argument("--work", nargs=2)
    given = arguments.parse_args()
    if given.work:
        seconds = {"ours": ours, "pandas": pandas}[given.work[0]](Path(given.work[1]))
        print(json.dumps({"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
        return
    found: dict[str, Any] = {}
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), rows)
            measured = apart("ours", Path(folder))
            plain = apart("pandas", Path(folder)) if rows == min(given.rows) else None
        found[str(rows)] = {**measured, "rows_per_second_and_core": rows / measured["seconds"] / (os.cpu_count() or 1)}
        if plain:
            found["pandas"] = plain
            found["times_pandas"] = plain["seconds"] / measured["seconds"]
        print(f"{rows:>10,} rows: {measured['seconds']:.1f} s, {measured['peak_gb']:.2f} GB", flush=True)
    least, most = found[str(min(given.rows))], found[str(max(given.rows))]
    found["linear"] = (most["seconds"] / max(given.rows)) / (least["seconds"] / min(given.rows))
    found["flat"] = most["peak_gb"] / least["peak_gb"]
    found["peak_gb"] = most["peak_gb"]
    holds = found["times_pandas"] >= BOUNDS["times_pandas"] and all(
        found[k] <= BOUNDS[k] for k in ("peak_gb", "linear", "flat")
    )
    print(json.dumps({"figures": found, "bounds": BOUNDS, "holds": holds}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
