"""The champion's days since its training, window by window: what its reports show."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from include.domain import performance
from include.domain.course import Course, Point
from include.domain.drift import History
from include.domain.performance import Scored
from include.ports import Ledger, Registry, Signals, Tables
from include.spec import ModelSpec
from include.stages import champion as champions
from include.stages import data_signals, monitoring, production, sketching
from include.stages.champion import Champion

#: Windows shown at most, the newest ones.
LAST = 60
CONFIDENCE = 0.95


def course(spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry, ledger: Ledger,
           as_of: datetime | None = None) -> Course | None:  # fmt: skip
    """None while there is no champion or no window since its training. Raises Corrupt for a damaged champion."""
    as_of = as_of or monitoring.clock(tables, spec.window)
    version = registry.alias(spec.name, "champion")
    if as_of is None or version is None:
        return None
    champion = champions.load(version, spec.window)
    landed = [w for w in tables.windows(data_signals.SOURCE) if sketching.window_of(w, spec.window).end <= as_of]
    past = [w for w in champion.train_windows if w in set(landed)]
    since = [w for w in landed if w > max(champion.train_windows)][-LAST:]
    if not past or not since:
        return None
    kept = sketching.of_windows(tables, data_signals.SOURCE, champion.encoding, [*past, *since], spec.window)
    seasons = [data_signals.season(w, spec.window) for w in past]
    reference = History([kept[w] for w in past], seasons, champion.encoding.knots)
    return Course(
        spec.name, champion.version,
        data_signals.compare(spec.watch.drift, reference, {w: kept[w] for w in since}, spec.window),
        _points(spec, tables, signals, champion, windows=since, as_of=as_of), {n: m.value for n, m in champion.measured.items()},
        ledger.read(spec.name, "decision"), sketching.summed([kept[w] for w in past]), kept[since[-1]], champion.encoding.knots,
    )  # fmt: skip


def _points(spec: ModelSpec, tables: Tables, signals: Signals, champion: Champion, *, windows: Sequence[str],
            as_of: datetime) -> dict[str, Point]:  # fmt: skip
    seen = production.served(signals, spec.name, champion.version, as_of)
    joined = production.labelled(spec, tables, seen, windows, as_of, last=LAST)
    by_window = seen.windows(spec.window)
    calibrated = performance.calibration(champion.test) if champion.test else None
    points = {}
    for window in windows:
        own = joined.of(window)
        scores = seen.scores[by_window[window]] if window in by_window else np.zeros(0)
        promised = performance.expected_auc(calibrated(scores)) if calibrated and len(scores) else None
        points[window] = _point(own, promised)
    return points


def _point(own: Scored, promised: float | None) -> Point:
    if not own.both_classes:
        return Point(None, None, promised)
    found = [performance.auc(own), performance.logloss(own)]
    auc, logloss = ((m.value, *m.interval(CONFIDENCE)) for m in found)
    return Point(auc, logloss, promised)
