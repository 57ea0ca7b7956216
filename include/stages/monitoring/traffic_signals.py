"""What the champion's own predictions say: live performance, prediction drift, labels, training-serving skew."""

import json
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.domain.categories import as_text
from include.domain.features.encoding import as_numbers
from include.domain.monitoring import drift, naive_checks, performance, quality, retraining
from include.domain.monitoring.drift import ReferenceWindows
from include.domain.monitoring.performance import LabelledScores
from include.domain.monitoring.signal import Signal, unknown
from include.domain.monitoring.sketch import sketch_numbers
from include.domain.windows import parse_utc, window_of
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import data_signals, sketching
from include.stages.release.champion import Champion
from include.stages.serving import live_predictions
from include.stages.serving.live_predictions import VersionPredictions

#: Rows that skew is measured on at most, and how far two float32 may lie apart.
SKEW_ROWS = 5000
TOLERANCE = 1e-5
KNOTS = np.linspace(0, 1, 65)


def signals(
    spec: ModelSpec,
    tables: Tables,
    champion: Champion,
    seen: VersionPredictions,
    *,
    landed: Sequence[str],
    as_of: datetime,
) -> list[Signal]:
    rules = spec.watch
    joined = live_predictions.labelled(spec, tables, seen, landed, as_of, last=rules.performance.windows)
    fresh = tuple(w for w in landed if parse_utc(w) >= champion.ends)
    return [
        *performance.signals(rules.performance, joined, champion.measured),
        _estimated(spec, champion, seen),
        _label_rate(spec, champion, joined),
        _prediction_drift(spec, champion, seen),
        _mean_score(spec, champion, seen),
        _skew(spec, tables, champion, seen, landed),
        retraining.new_labels(rules.retraining, live_predictions.outcomes(spec, tables, fresh).num_rows, fresh),
    ]


def _newest(spec: ModelSpec, seen: VersionPredictions) -> tuple[NDArray[np.float64], NDArray[np.intp], tuple[str, ...]]:
    """The scores of the last windows with predictions, each one's window, the windows' names."""
    by_window = seen.windows(spec.window)
    names = tuple(by_window)[-spec.watch.performance.windows :]
    rows = np.concatenate([by_window[w] for w in names] or [np.zeros(0, np.intp)])
    return seen.scores[rows], np.repeat(np.arange(len(names)), [len(by_window[w]) for w in names]), names


def _mean_score(spec: ModelSpec, champion: Champion, seen: VersionPredictions) -> Signal:
    scores, _, names = _newest(spec, seen)
    if champion.test is None or not len(scores):
        return unknown("mean_score", "no scores to compare", names)
    return naive_checks.mean_score(spec.watch.simple, float(scores.mean()), float(champion.test.scores.mean()), names)


def _estimated(spec: ModelSpec, champion: Champion, seen: VersionPredictions) -> Signal:
    """The AUC that the newest predictions promise, before any label is due."""
    if champion.test is None or not champion.test.both_classes:
        return unknown("estimated_auc", "the scores of the champion's test windows are not kept")
    scores, window, names = _newest(spec, seen)
    calibrated = performance.platt_scaling(champion.test)(scores)
    return performance.estimated_auc(spec.watch.performance, calibrated, window, names, champion.measured["auc"])


def _prediction_drift(spec: ModelSpec, champion: Champion, seen: VersionPredictions) -> Signal:
    """The live scores against those on the champion's test windows."""
    rules, test = spec.watch.drift, champion.test
    if test is None:
        return unknown("prediction_drift", "the scores of the champion's test windows are not kept")
    windows = {w: rows for w, rows in seen.windows(spec.window).items() if len(rows) >= rules.min_rows}
    if not windows:
        return unknown("prediction_drift", f"no window with {rules.min_rows} predictions of version {champion.version}")
    knots = np.unique(np.quantile(test.scores, KNOTS)).tolist()
    past = [{"score": sketch_numbers(knots, test.scores[test.window == i])} for i in range(len(test.windows))]
    history = ReferenceWindows(past, [data_signals.season(w, spec.window) for w in test.windows], {"score": knots})
    newest = list(windows)[-rules.recent_windows :]
    live = {w: {"score": sketch_numbers(knots, seen.scores[windows[w]])} for w in newest}
    return drift.signal("prediction_drift", rules, data_signals.compare(rules, history, live, spec.window))


def _label_rate(spec: ModelSpec, champion: Champion, joined: LabelledScores) -> Signal:
    if champion.test is None or not len(joined):
        return unknown("label_rate", "no labels to compare", joined.windows)
    live, then = (performance.label_rate(s) for s in (joined, champion.test))
    return quality.label_rate(spec.watch.quality, live, then, joined.windows)


def _skew(
    spec: ModelSpec, tables: Tables, champion: Champion, seen: VersionPredictions, landed: Sequence[str]
) -> Signal:
    """What the servers were given for the newest landed window, against what the table holds for the same keys."""
    by_window = seen.windows(spec.window)
    both = [w for w in by_window if w in set(landed)]
    if not both:
        return unknown("skew", "no window with predictions has landed yet")
    fields = sketching.features(champion.encoding)
    rows = by_window[both[-1]][-SKEW_ROWS:]
    table = tables.read(data_signals.SOURCE, [window_of(both[-1], spec.window)])
    place = pc.index_in(seen.keys.take(pa.array(rows)), value_set=live_predictions.keys(spec, table).combine_chunks())
    known = place.is_valid().to_numpy(zero_copy_only=False)
    table = table.take(place.drop_null())
    logged = [json.loads(text) for text in seen.features.take(pa.array(rows[known])).to_pylist()]
    differing = {
        f: _differing(table[f].to_pylist(), [row.get(f) for row in logged], numeric=f in champion.encoding.knots)
        for f in fields
        if f in table.column_names
    }
    return quality.skew(spec.watch.quality, differing, len(logged), (both[-1],))


def _differing(held: list[object], served: list[object], *, numeric: bool) -> int:
    if numeric:
        a, b = as_numbers("table", held), as_numbers("log", served)
        return int(np.count_nonzero(~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)))
    return sum(as_text(a) != as_text(b) for a, b in zip(held, served, strict=True))
