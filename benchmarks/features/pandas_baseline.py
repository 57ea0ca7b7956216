"""Land, validate and build the features of the click stream plainly with pandas: the same work, for comparison.

Every value is typed; bad rows are set aside with file, line, column, reason and the row; the last row of each key is used; each
day is measured by itself and against the fourteen before it; both tables are Parquet partitioned by window, with digests of
content and files. Great Expectations judges the measures here too, since pandas has no counterpart.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.features.data import Counts
from include.local.clicks import CATEGORIES, NUMBERS
from include.ports.validation import Profile
from include.spec.model_spec import ModelSpec

#: Days against which a day is measured, and how many of them must be there.
REFERENCE_DAYS, MIN_REFERENCE_DAYS = 14, 3


def run(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    """Do the work on the folder's files, write the tables under `home`, and count the rows."""
    counts, latest = Counts(), {name: dict[str, int]() for name in CATEGORIES}
    profiles: list[Profile] = []
    for number, file in enumerate(sorted(folder.glob("*.tsv"))):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        raw = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, na_values=[""], quoting=csv.QUOTE_NONE)
        typed, rejects = _typed(raw, file.name)
        unique = typed.drop_duplicates("id", keep="last").sort_values(["time", "id"])
        counts.add(read=len(raw), landed=len(unique), quarantined=len(rejects), duplicates=len(typed) - len(unique))
        content = _write_rows(unique, home / "landed" / f"window={file.stem}")
        _write_rows(rejects, home / "quarantine" / f"window={file.stem}")
        facts = {"rows": len(unique), "digest": content, "file": digest, "quarantined": len(rejects)}
        (home / f"{file.stem}.json").write_text(json.dumps(facts))
        profiles.append(Profile(file.stem, _measures(unique, number, file.stem, profiles, latest)))
    for window in _passing_windows(spec, profiles, home):
        rows = pd.read_parquet(
            home / "landed" / f"window={window}", columns=["time", "id", "click", *CATEGORIES, *NUMBERS]
        )
        _write_rows(rows, home / "features" / f"window={window}")
        counts.add(built=len(rows))
    return counts


def _typed(raw: pd.DataFrame, file: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with every value typed, and the rejected rows with the first wrong value of each."""
    column, reason = np.full(len(raw), None, dtype=object), np.full(len(raw), None, dtype=object)
    values: dict[str, Any] = {}
    for name, value, why, required in _parsed_columns(raw):
        values[name] = value
        if value.isna().sum() == (0 if required else raw[name].isna().sum()):
            continue
        wrong = value.isna().to_numpy() & (required or raw[name].notna().to_numpy()) & (column == None)  # noqa: E711
        column[wrong] = name
        reason[wrong] = why + ": " + raw[name][wrong].fillna("(missing)").str.slice(0, 80)
    values["line"] = np.arange(2, len(raw) + 2)
    bad = column != None  # noqa: E711
    typed = pd.DataFrame(values, copy=False).assign(file=file)
    raw_rows = [json.dumps(row) for row in raw[bad].to_dict("records")]
    rejects = pd.DataFrame(
        {"file": file, "line": values["line"][bad], "column": column[bad], "reason": reason[bad], "raw": raw_rows}
    )
    return typed[~bad] if bad.any() else typed, rejects


def _parsed_columns(raw: pd.DataFrame) -> Iterator[tuple[str, pd.Series, str, bool]]:
    """Yield of each column its name, its values (missing if wrong), the reason of a wrong value, and whether it is required."""
    yield "time", pd.to_datetime(raw["time"], utc=True, errors="coerce", format="ISO8601"), "not a time in UTC", True
    yield "id", raw["id"], "no key", True
    label = pd.to_numeric(raw["click"], errors="coerce")
    yield "click", label.where(label.isin([0, 1])), "neither of 0 and 1", False
    for name in CATEGORIES:
        yield name, raw[name], "no text", False
    for name in NUMBERS:
        number = pd.to_numeric(raw[name], errors="coerce")
        yield name, number.where(np.isfinite(number)), "not a finite number", False


def _write_rows(rows: pd.DataFrame, folder: Path) -> str:
    """Write the rows as Parquet, and return the digest of their content."""
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "part.parquet", index=False)
    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def _measures(
    rows: pd.DataFrame, number: int, window: str, before: list[Profile], latest: dict[str, dict[str, int]]
) -> dict[str, float | None]:
    """Return the measures of a day; update `latest`, which holds by column the last day on which each category came."""
    reference = [profile.measures for profile in before[-REFERENCE_DAYS:]]
    enough = len(reference) >= MIN_REFERENCE_DAYS
    rate, nulls = float(rows["click"].mean()), rows[[*CATEGORIES, *NUMBERS]].isna().mean()
    end = pd.Timestamp(window, tz="UTC") + pd.Timedelta(days=1)
    measures: dict[str, float | None] = {
        "rows": float(len(rows)),
        "label_rate": rate,
        "silence": (end - rows["time"].max()) / pd.Timedelta(days=1),
        "volume": len(rows) / float(np.median([m["rows"] or 0 for m in reference])) if enough else None,
        "label_shift": rate - float(np.median([m["label_rate"] or 0 for m in reference])) if enough else None,
        **{f"nulls.{name}": float(share) for name, share in nulls.items()},
    }
    for name, latest_days in latest.items():
        counts = rows[name].value_counts()
        last_days = np.array([latest_days.get(category, -REFERENCE_DAYS - 1) for category in counts.index])
        if enough:
            measures[f"unseen.{name}"] = float(counts[number - last_days > REFERENCE_DAYS].sum() / counts.sum())
        latest_days.update(dict.fromkeys(counts.index, number))
    return measures


def _passing_windows(spec: ModelSpec, profiles: list[Profile], home: Path) -> list[str]:
    """Return the windows whose measures Great Expectations lets pass."""
    from include.adapters.validation.great_expectations import GreatExpectations
    from include.domain.verdict import Outcome

    verdicts, _ = GreatExpectations(spec, home / "pages").validate((), profiles, "run")
    return [name for name, verdict in verdicts.items() if verdict.outcome is Outcome.PASS]
