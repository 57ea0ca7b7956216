"""Validation: is a landed window what the spec and the last windows let one expect? One verdict a window, kept as a record."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from include.domain.verdict import Outcome, Verdict
from include.domain.windows import Window
from include.ports.tables import Records, Tables
from include.ports.validation import Profile, Validator
from include.spec.data import Columns
from include.spec.model_spec import ModelSpec
from include.stages.data.landing import landed_rows, pieces, touched
from include.stages.data.parsing import wanted
from include.stages.data.partitioning import LANDED
from include.stages.data.row_digest import by_window

VALIDATED = "validated"
#: A window is compared with so many before it, and with none when there are fewer than `ENOUGH`.
LAST, ENOUGH = 14, 3


def validate(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, validator: Validator, records: Records, run: str
) -> dict[str, Verdict]:
    """Verdicts by window label, on these windows and those to which the run landed late rows.

    Raises UserMistake for an expectation of the spec that cannot be judged.
    """
    due = list(pieces(touched(spec, windows, records, run), landed_rows(records)))
    profiles: list[Profile] = []
    parts: dict[str, pa.Table] = {}
    for piece in due:
        parts = _parts(spec, piece, tables, records, parts)
        profiles += profile(spec, parts, piece, _recorded(piece[0], records, profiles))
    rows = (tables.read(LANDED, piece, columns=[*wanted(spec.columns), "window"]) for piece in due)
    verdicts, page = validator.validate(rows, profiles, run)
    for each in profiles:
        landed = records.read(LANDED, each.window) or {}
        records.write(VALIDATED, each.window, {
            "verdict": verdicts[each.window].to_dict(), "measures": dict(each.measures), "page": page, "run": run,
            "digest": landed.get("digest"), "table_version": landed.get("table_version"), "spec_digest": spec.digest,
        })  # fmt: skip
    return dict(verdicts)


def _parts(
    spec: ModelSpec, windows: Sequence[Window], tables: Tables, records: Records, held: Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """By label the rows of the windows, and of those before them as many as fit into memory; `held` were read already."""
    columns, before = spec.columns, windows[0].preceding(LAST)
    near = next(pieces(before, landed_rows(records)))
    parts = {w.label: held[w.label] for w in near if w.label in held}
    more = [w for w in near if w.label not in held]
    for some, names in ((more, []), (windows, [*columns.numeric, columns.time])):
        asked = [columns.label, *columns.categorical, *names, "window"]
        if some:
            parts |= by_window(tables.read(LANDED, some, columns=asked, coded=columns.categorical), ())
    return parts


def failed(windows: Sequence[Window], records: Records) -> list[str]:
    """Labels of the windows whose content as landed now has not been validated with pass."""
    return [w.label for w in windows if not _passed(w.label, records)]


def _passed(name: str, records: Records) -> bool:
    landed, validated = records.read(LANDED, name), records.read(VALIDATED, name)
    if landed is None or validated is None or landed["digest"] != validated["digest"]:
        return False
    return Verdict.from_dict(validated["verdict"]).outcome is Outcome.PASS


def _recorded(first: Window, records: Records, judged_with: Sequence[Profile]) -> dict[str, Mapping[str, Any]]:
    """What was measured of windows before the first, in this run or earlier, so that large ones need not be read again."""
    told = {name: records.read(VALIDATED, name) for name in _labels_before(first)}
    measured = {name: facts["measures"] for name, facts in told.items() if facts}
    measured |= {profile.window: profile.measures for profile in judged_with}
    return {name: measures for name, measures in measured.items() if measures["rows"]}


def profile(
    spec: ModelSpec, parts: Mapping[str, pa.Table], windows: Sequence[Window], recorded: Mapping[str, Mapping[str, Any]]
) -> list[Profile]:
    """The windows in numbers, each against the windows before it; `parts` are the rows of both by window label, of the
    earlier ones as many as fit into memory, and `recorded` what was measured of the others."""
    measured = {**recorded, **{name: _measured(spec.columns, rows) for name, rows in parts.items()}}
    categories, names = spec.columns.categorical, sorted(parts)
    with ThreadPoolExecutor() as threads:
        shares = threads.map(lambda category: _unseen({name: parts[name][category] for name in names}), categories)
    unseen = dict(zip(categories, shares, strict=True))
    return [_profile(window, measured, unseen) for window in windows]


def _measured(columns: Columns, rows: pa.Table) -> dict[str, Any]:
    """The window by itself, in the columns that were read of it."""
    held = set(rows.column_names)
    return {
        "rows": len(rows), "label_rate": pc.mean(rows[columns.label]).as_py(),
        "last": pc.max(rows[columns.time]).as_py() if columns.time in held else None,
        **{f"nulls.{name}": rows[name].null_count / len(rows) for name in columns.features if name in held},
    }  # fmt: skip


def _profile(
    window: Window,
    measured: Mapping[str, Mapping[str, Any]],
    unseen: Mapping[str, Mapping[str, float]],
) -> Profile:
    name = window.label
    own = measured.get(name)
    if own is None:
        return Profile(name, {"rows": 0.0})
    last = [measured[n] for n in _labels_before(window) if n in measured]
    median = pl.Series([float(m["rows"]) for m in last]).median() if len(last) >= ENOUGH else None
    rates = pl.Series([m["label_rate"] for m in last if m.get("label_rate") is not None], dtype=pl.Float64)
    usual = rates.median() if len(rates) >= ENOUGH else None
    silence = window.share_after(own["last"])
    return Profile(name, {
        "rows": float(own["rows"]), "label_rate": own["label_rate"], "silence": silence,
        "volume": own["rows"] / median if median else None,
        "label_shift": own["label_rate"] - usual if usual is not None and own["label_rate"] is not None else None,
        **{n: v for n, v in own.items() if n.startswith("nulls.")},
        **({f"unseen.{c}": shares.get(name, 0.0) for c, shares in unseen.items()} if len(last) >= ENOUGH else {}),
    })  # fmt: skip


def _labels_before(window: Window) -> list[str]:
    return [earlier.label for earlier in window.preceding(LAST)]


def _unseen(columns: Mapping[str, pa.ChunkedArray]) -> dict[str, float]:
    """By window, oldest first, the share of rows whose category occurs in none of the `LAST` windows before it."""
    days = pl.concat(_counted(at, column) for at, column in enumerate(columns.values())).sort(
        "kind", maintain_order=True
    )
    kind, at, rows = pl.col("kind"), pl.col("at"), pl.col("rows")
    new = kind.ne_missing(kind.shift(1)) | (at - at.shift(1) > LAST)
    shares = days.with_columns(new=new).group_by("at").agg((rows * pl.col("new")).sum() / rows.sum())
    windows = list(columns)
    return {windows[at]: share for at, share in shares.iter_rows()}


def _counted(at: int, column: pa.ChunkedArray) -> pl.DataFrame:
    """How many rows each category has; one in 2^64 is taken for another, and sorting numbers is faster than texts."""
    coded = column.combine_chunks().dictionary_encode()
    times = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(coded.dictionary))
    kinds = pl.Series("kind", coded.dictionary).hash()
    return pl.DataFrame(
        [pl.Series("at", [at], pl.Int32).new_from_index(0, len(kinds)), kinds, pl.Series("rows", times)]
    )
