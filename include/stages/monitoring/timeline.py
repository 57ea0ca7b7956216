"""The champion's days since its training, window by window: what its reports show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring import performance
from include.domain.monitoring.drift import FeatureDrift, ReferenceWindows
from include.domain.monitoring.performance import LabelledScores
from include.domain.monitoring.sketch import Sketches
from include.domain.windows import window_of
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.tables import Tables
from include.ports.traffic import Signals
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import data_signals, monitoring, online_comparison, sketching
from include.stages.monitoring.online_comparison import Comparison, Interval
from include.stages.release import champion as champions
from include.stages.release.champion import Champion
from include.stages.serving import live_predictions

#: Windows shown at most, the newest ones.
LAST = 60
CONFIDENCE = 0.95
#: Reference windows of the newest one's season that its rows are laid beside, the newest ones.
BESIDE = 4


@dataclass(frozen=True)
class Point:
    """One window: AUC, logloss and label rate with their intervals, None where not known; the AUC promised without labels,
    and the mean score."""

    auc: Interval | None = None
    logloss: Interval | None = None
    label_rate: Interval | None = None
    estimated_auc: float | None = None
    mean_score: float | None = None


@dataclass(frozen=True)
class Course:
    """By window, oldest first; sketches of the `newest` beside those of the `reference`, on the same bins.

    `bins[feature]` names each bin of its sketch; `effect_bound` is the drift rules'; `cleared`: after which request the
    cause was gone.
    """

    model: str
    version: str
    moved: Mapping[str, Sequence[FeatureDrift]]
    points: Mapping[str, Point]
    test: Mapping[str, float]
    decisions: Sequence[RetrainingDecided]
    cleared: Sequence[CauseRechecked]
    arms: Sequence[Comparison]
    reference: Sketches
    newest: Sketches
    bins: Mapping[str, Sequence[str]]
    effect_bound: float


@dataclass(frozen=True)
class Sides:
    """The newest window's rows and those of like windows of the champion's training, in the columns that both have values in."""

    window: str
    version: str
    run_id: str | None
    reference: pa.Table
    newest: pa.Table
    numeric: list[str]
    categorical: list[str]


def course(spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry, ledger: Ledger,
           as_of: datetime | None = None) -> Course | None:  # fmt: skip
    """None while there is no champion or no window since its training. Raises Corrupt for a damaged champion."""
    as_of = as_of or monitoring.clock(tables, spec.window)
    version = registry.version_by_alias(spec.name, "champion")
    if as_of is None or version is None:
        return None
    champion = champions.load(version, spec.window)
    landed = [w for w in tables.windows(data_signals.SOURCE) if window_of(w, spec.window).end <= as_of]
    past = [w for w in champion.train_windows if w in set(landed)]
    since = [w for w in landed if w > max(champion.train_windows)][-LAST:]
    if not past or not since:
        return None
    kept = sketching.of_windows(tables, data_signals.SOURCE, champion.encoding, [*past, *since], spec.window)
    rules, seasons = spec.watch.drift, [data_signals.season(w, spec.window) for w in past]
    reference = ReferenceWindows([kept[w] for w in past], seasons, champion.encoding.knots)
    return Course(
        model=spec.name, version=champion.version,
        moved=data_signals.compare(rules, reference, {w: kept[w] for w in since}, spec.window),
        points=_points(spec, tables, signals, champion, windows=since, as_of=as_of),
        test={n: m.value for n, m in champion.measured.items()},
        decisions=ledger.read(spec.name, RetrainingDecided), cleared=ledger.read(spec.name, CauseRechecked),
        arms=online_comparison.compare(spec, tables=tables, signals=signals, champion=champion.version, as_of=as_of, last=LAST),
        reference=sketching.summed([kept[w] for w in past]), newest=kept[since[-1]],
        bins=sketching.names(champion.encoding), effect_bound=rules.effect,
    )  # fmt: skip


def sides(spec: ModelSpec, *, tables: Tables, registry: Registry) -> Sides | None:
    """What a report of single values compares; None as for `course`, or where one side has no value at all."""
    version = registry.version_by_alias(spec.name, "champion")
    landed = tables.windows(data_signals.SOURCE)
    if version is None or not landed:
        return None
    champion = champions.load(version, spec.window)
    past, newest = [w for w in champion.train_windows if w in set(landed)], landed[-1]
    if not past or newest <= max(champion.train_windows):
        return None
    season = data_signals.season(newest, spec.window)
    like = [w for w in past if data_signals.season(w, spec.window) == season] or past
    then, now = (
        tables.read(data_signals.SOURCE, [window_of(w, spec.window) for w in windows])
        for windows in (like[-BESIDE:], [newest])
    )
    shown = [f for f in sketching.features(champion.encoding) if _has_values(then, f) and _has_values(now, f)]
    numeric, categorical = ([f for f in shown if (f in champion.encoding.knots) is known] for known in (True, False))
    run_id = version.tags.get("mlflow_run_id")
    return Sides(newest, version.number, run_id, then, now, numeric, categorical) if shown else None


def _has_values(rows: pa.Table, column: str) -> bool:
    return column in rows.column_names and rows[column].null_count < len(rows)


def _points(spec: ModelSpec, tables: Tables, signals: Signals, champion: Champion, *, windows: Sequence[str],
            as_of: datetime) -> dict[str, Point]:  # fmt: skip
    seen = live_predictions.served(signals, spec.name, champion.version, as_of)
    joined = live_predictions.labelled(spec, tables, seen, windows, as_of, last=LAST)
    by_window = seen.windows(spec.window)
    calibrated = performance.platt_scaling(champion.test) if champion.test else None
    points = {}
    for window in windows:
        own = joined.in_window(window)
        scores = seen.scores[by_window[window]] if window in by_window else np.zeros(0)
        promised = performance.expected_auc(calibrated(scores)) if calibrated and len(scores) else None
        points[window] = Point(
            *_measured(own), estimated_auc=promised, mean_score=float(scores.mean()) if len(scores) else None
        )
    return points


def _measured(own: LabelledScores) -> tuple[Interval | None, Interval | None, Interval | None]:
    """AUC, logloss and label rate."""
    if not own.both_classes:
        return None, None, None
    found = (performance.auc(own), performance.logloss(own), performance.label_rate(own))
    auc, logloss, rate = ((m.value, *m.interval(CONFIDENCE)) for m in found)
    return auc, logloss, rate
