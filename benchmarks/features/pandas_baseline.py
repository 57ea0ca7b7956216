"""Landing, validation and features of the click stream written plainly with pandas: the same work, for comparison.

Every value is typed, bad rows are set aside with file, line, column, reason and the row; of a key the last row is kept; each day is
measured by itself and against the fourteen before it; both tables are Parquet partitioned by window, with digests of content and
files. What pandas has no part in, Great Expectations' judgement of the measures, is called as it is.
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

LAST, ENOUGH = 14, 3


def work(spec: ModelSpec, folder: Path, home: Path) -> Counts:
    counts, latest = Counts(), {name: dict[str, int]() for name in CATEGORIES}
    profiles: list[Profile] = []
    for number, file in enumerate(sorted(folder.glob("*.tsv"))):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        raw = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, na_values=[""], quoting=csv.QUOTE_NONE)
        typed, rejects = _typed(raw, file.name)
        once = typed.drop_duplicates("id", keep="last").sort_values(["time", "id"])
        counts.add(read=len(raw), landed=len(once), quarantined=len(rejects), duplicates=len(typed) - len(once))
        content = _kept(once, home / "landed" / f"window={file.stem}")
        _kept(rejects, home / "quarantine" / f"window={file.stem}")
        facts = {"rows": len(once), "digest": content, "file": digest, "quarantined": len(rejects)}
        (home / f"{file.stem}.json").write_text(json.dumps(facts))
        profiles.append(Profile(file.stem, _measures(once, number, file.stem, profiles, latest)))
    for window in _passed(spec, profiles, home):
        rows = pd.read_parquet(
            home / "landed" / f"window={window}", columns=["time", "id", "click", *CATEGORIES, *NUMBERS]
        )
        _kept(rows, home / "features" / f"window={window}")
        counts.add(built=len(rows))
    return counts


def _typed(raw: pd.DataFrame, file: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows with every value typed, and those of which one cannot be, with the first fault of each."""
    column, reason = np.full(len(raw), None, dtype=object), np.full(len(raw), None, dtype=object)
    values: dict[str, Any] = {}
    for name, value, why, required in _readings(raw):
        values[name] = value
        if value.isna().sum() == (0 if required else raw[name].isna().sum()):
            continue
        faulty = value.isna().to_numpy() & (required or raw[name].notna().to_numpy()) & (column == None)  # noqa: E711
        column[faulty] = name
        reason[faulty] = why + ": " + raw[name][faulty].fillna("(missing)").str.slice(0, 80)
    values["line"] = np.arange(2, len(raw) + 2)
    bad = column != None  # noqa: E711
    typed = pd.DataFrame(values, copy=False).assign(file=file)
    told = [json.dumps(row) for row in raw[bad].to_dict("records")]
    rejects = pd.DataFrame(
        {"file": file, "line": values["line"][bad], "column": column[bad], "reason": reason[bad], "raw": told}
    )
    return typed[~bad] if bad.any() else typed, rejects


def _readings(raw: pd.DataFrame) -> Iterator[tuple[str, pd.Series, str, bool]]:
    yield "time", pd.to_datetime(raw["time"], utc=True, errors="coerce", format="ISO8601"), "not a time in UTC", True
    yield "id", raw["id"], "no key", True
    label = pd.to_numeric(raw["click"], errors="coerce")
    yield "click", label.where(label.isin([0, 1])), "neither of 0 and 1", False
    for name in CATEGORIES:
        yield name, raw[name], "no text", False
    for name in NUMBERS:
        number = pd.to_numeric(raw[name], errors="coerce")
        yield name, number.where(np.isfinite(number)), "not a finite number", False


def _kept(rows: pd.DataFrame, folder: Path) -> str:
    """Writes them; the digest of their content."""
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "part.parquet", index=False)
    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def _measures(
    rows: pd.DataFrame, number: int, window: str, before: list[Profile], latest: dict[str, dict[str, int]]
) -> dict[str, float | None]:
    """The day in numbers; `latest` holds by column the last day on which each category was seen."""
    last = [profile.measures for profile in before[-LAST:]]
    enough = len(last) >= ENOUGH
    rate, nulls = float(rows["click"].mean()), rows[[*CATEGORIES, *NUMBERS]].isna().mean()
    end = pd.Timestamp(window, tz="UTC") + pd.Timedelta(days=1)
    found: dict[str, float | None] = {
        "rows": float(len(rows)),
        "label_rate": rate,
        "silence": (end - rows["time"].max()) / pd.Timedelta(days=1),
        "volume": len(rows) / float(np.median([m["rows"] or 0 for m in last])) if enough else None,
        "label_shift": rate - float(np.median([m["label_rate"] or 0 for m in last])) if enough else None,
        **{f"nulls.{name}": float(share) for name, share in nulls.items()},
    }
    for name, seen in latest.items():
        counted = rows[name].value_counts()
        known = np.array([seen.get(kind, -LAST - 1) for kind in counted.index])
        if enough:
            found[f"unseen.{name}"] = float(counted[number - known > LAST].sum() / counted.sum())
        seen.update(dict.fromkeys(counted.index, number))
    return found


def _passed(spec: ModelSpec, profiles: list[Profile], home: Path) -> list[str]:
    from include.adapters.validation.great_expectations import GreatExpectations
    from include.domain.verdict import Outcome

    verdicts, _ = GreatExpectations(spec, home / "pages").validate((), profiles, "run")
    return [name for name, verdict in verdicts.items() if verdict.outcome is Outcome.PASS]
