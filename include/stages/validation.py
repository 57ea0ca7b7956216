"""Validation: is a landed window what the spec and the last windows let one expect? One verdict a window, kept as a record."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from include.domain.verdict import Outcome, Verdict
from include.domain.windows import Window, label
from include.ports import Profile, Records, Tables, Validator
from include.spec import ModelSpec
from include.stages.casting import wanted
from include.stages.landing import landed_rows, pieces, touched
from include.stages.sorting import LANDED

VALIDATED = "validated"
#: A window is compared with so many before it, and with none when there are fewer than `ENOUGH`.
LAST, ENOUGH = 14, 3


def validate(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, validator: Validator, records: Records, run: str
) -> dict[str, Verdict]:
    """Verdicts by window label, on these windows and those to which the run landed late rows.

    Raises UserMistake for an expectation of the spec that cannot be judged.
    """
    verdicts: dict[str, Verdict] = {}
    for number, piece in enumerate(pieces(touched(spec, windows, records, run), landed_rows(records))):
        found = _validate(spec, piece, tables, validator, records, f"{run}-{number}" if number else run)
        verdicts |= found
    return verdicts


def _validate(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, validator: Validator, records: Records, run: str
) -> dict[str, Verdict]:
    profiles, rows = _profiles(spec, windows, tables, records)
    verdicts, page = validator.validate(rows, profiles, run)
    for each in profiles:
        landed = records.read(LANDED, each.window) or {}
        records.write(VALIDATED, each.window, {
            "verdict": verdicts[each.window].to_dict(), "measures": dict(each.measures), "page": page, "run": run,
            "digest": landed.get("digest"), "table_version": landed.get("table_version"), "spec_digest": spec.digest,
        })  # fmt: skip
    return dict(verdicts)


def _profiles(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records
) -> tuple[list[Profile], pa.Table]:
    """The windows in numbers, and their rows."""
    before = [_earlier(spec, windows[0], n) for n in range(1, LAST + 1)]
    compared = next(pieces(before, landed_rows(records)))
    columns, own_names = spec.columns, [spec.columns.time, spec.columns.label, *spec.columns.features]
    if spec.validation.expectations:  # the user's may look at any column
        own_names = wanted(columns)
    earlier = tables.read(LANDED, compared, columns=[columns.label, *columns.categorical, "window"])
    own = tables.read(LANDED, windows, columns=[*own_names, "window"])
    rows = pl.concat([pl.DataFrame(pl.from_arrow(part)) for part in (earlier, own)], how="diagonal")
    return profile(spec, rows, windows, _recorded(before, records)), own


def failed(windows: Sequence[Window], records: Records) -> list[str]:
    """Labels of the windows whose content as landed now has not been validated with pass."""
    return [label(w.start) for w in windows if not _passed(label(w.start), records)]


def _passed(name: str, records: Records) -> bool:
    landed, validated = records.read(LANDED, name), records.read(VALIDATED, name)
    if landed is None or validated is None or landed["digest"] != validated["digest"]:
        return False
    return Verdict.from_dict(validated["verdict"]).outcome is Outcome.PASS


def _recorded(windows: Sequence[Window], records: Records) -> dict[str, dict[str, Any]]:
    """Rows and label rate of windows judged before, so that large ones need not be read again."""
    told = {label(w.start): records.read(VALIDATED, label(w.start)) for w in windows}
    return {name: facts["measures"] for name, facts in told.items() if facts and facts["measures"]["rows"]}


def profile(
    spec: ModelSpec, rows: pl.DataFrame, windows: Sequence[Window], recorded: Mapping[str, dict[str, Any]]
) -> list[Profile]:
    """The windows in numbers, each against the windows before it; `rows` hold both, of the earlier ones as many as fit
    into memory, and `recorded` what was measured of the others."""
    columns = spec.columns
    measured = rows.group_by("window").agg(
        pl.len().alias("rows"), pl.col(columns.label).mean().alias("label_rate"),
        pl.col(columns.time).max().alias("last"),
        *(pl.col(name).is_null().mean().alias(f"nulls.{name}") for name in columns.features),
    )  # fmt: skip
    by_window = {**recorded, **{row["window"]: row for row in measured.iter_rows(named=True)}}
    unseen = _unseen(rows, columns.categorical)
    return [_profile(spec, window, by_window, unseen) for window in windows]


def _profile(
    spec: ModelSpec, window: Window, measured: dict[str, dict[str, Any]], unseen: dict[str, dict[str, float]]
) -> Profile:
    name = label(window.start)
    own = measured.get(name)
    if own is None:
        return Profile(name, {"rows": 0.0})
    last = [measured[n] for n in _last(spec, window) if n in measured]
    median = pl.Series([float(m["rows"]) for m in last]).median() if len(last) >= ENOUGH else None
    rates = pl.Series([m["label_rate"] for m in last if m.get("label_rate") is not None], dtype=pl.Float64)
    usual = rates.median() if len(rates) >= ENOUGH else None
    silence = (window.end - own["last"]) / spec.window.length
    return Profile(name, {
        "rows": float(own["rows"]), "label_rate": own["label_rate"], "silence": silence,
        "volume": own["rows"] / median if median else None,
        "label_shift": own["label_rate"] - usual if usual is not None and own["label_rate"] is not None else None,
        **{n: v for n, v in own.items() if n.startswith("nulls.")},
        **({f"unseen.{c}": shares.get(name, 0.0) for c, shares in unseen.items()} if len(last) >= ENOUGH else {}),
    })  # fmt: skip


def _last(spec: ModelSpec, window: Window) -> list[str]:
    return [label(_earlier(spec, window, n).start) for n in range(1, LAST + 1)]


def _earlier(spec: ModelSpec, window: Window, n: int) -> Window:
    start = window.start - n * spec.window.length
    return Window(start, start + spec.window.length)


def _unseen(rows: pl.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """By column and window the share of rows whose category occurs in none of the `LAST` windows before it."""
    order = {name: n for n, name in enumerate(sorted(rows["window"].unique()))}
    hashed = rows.select(  # one category in 2^64 is taken for another; counting numbers is eight times as fast
        pl.col("window").replace_strict(order, return_dtype=pl.Int32).alias("at"),
        *(pl.when(pl.col(name).is_not_null()).then(pl.col(name).hash()).alias(name) for name in columns),
    )
    return {name: _unseen_in(hashed.select("at", kind=name).drop_nulls("kind"), list(order)) for name in columns}


def _unseen_in(rows: pl.DataFrame, windows: Sequence[str]) -> dict[str, float]:
    """`at` counts the windows."""
    days = rows.group_by("at", "kind").len().sort("kind", "at")
    gap = pl.col("at") - pl.col("at").shift(1).over("kind")
    new = days.with_columns(new=gap.is_null() | (gap > LAST)).group_by("at").agg(
        (pl.col("len") * pl.col("new")).sum() / pl.col("len").sum()
    )  # fmt: skip
    return {windows[at]: share for at, share in new.iter_rows()}
