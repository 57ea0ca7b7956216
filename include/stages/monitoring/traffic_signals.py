"""Signals of the champion's own predictions: live performance, prediction drift, label rate, training-serving skew."""

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

#: Skew is measured on at most so many rows.
SKEW_ROWS = 5000
#: Two float32 numbers this close, absolutely or relatively, are the same.
TOLERANCE = 1e-5
#: The quantiles of the test scores between which live scores are counted.
KNOT_QUANTILES = np.linspace(0, 1, 65)
NO_TEST_SCORES = "the scores of the champion's test windows are not kept"


def signals(
    spec: ModelSpec,
    tables: Tables,
    champion: Champion,
    predictions: VersionPredictions,
    *,
    landed: Sequence[str],
    as_of: datetime,
) -> list[Signal]:
    """Return the signals of the champion's predictions; `landed` are the labels of the windows landed by `as_of`."""
    rules = spec.watch
    labelled = live_predictions.labelled(spec, tables, predictions, landed, as_of, last=rules.performance.windows)
    since = tuple(w for w in landed if parse_utc(w) >= champion.data_ends)
    new_labels = live_predictions.landed_labels(spec, tables, since).num_rows
    return [
        *performance.signals(rules.performance, labelled, champion.test_metrics),
        _estimated_auc(spec, champion, predictions),
        _label_rate(spec, champion, labelled),
        _prediction_drift(spec, champion, predictions),
        _mean_score(spec, champion, predictions),
        _skew(spec, tables, champion, predictions, landed),
        retraining.new_labels(rules.retraining, new_labels, since),
    ]


def _newest_scores(
    spec: ModelSpec, predictions: VersionPredictions
) -> tuple[NDArray[np.float64], NDArray[np.intp], tuple[str, ...]]:
    """Return the scores `[n]` of the last windows with predictions, each one's window as an index `[n]`, and the labels."""
    by_window = predictions.windows(spec.window)
    labels = tuple(by_window)[-spec.watch.performance.windows :]
    rows = np.concatenate([by_window[w] for w in labels] or [np.zeros(0, np.intp)])
    return predictions.scores[rows], np.repeat(np.arange(len(labels)), [len(by_window[w]) for w in labels]), labels


def _mean_score(spec: ModelSpec, champion: Champion, predictions: VersionPredictions) -> Signal:
    scores, _, labels = _newest_scores(spec, predictions)
    if champion.test_scores is None or not len(scores):
        return unknown("mean_score", "no scores to compare", labels)
    reference = float(champion.test_scores.scores.mean())
    return naive_checks.mean_score(spec.watch.simple, float(scores.mean()), reference, labels)


def _estimated_auc(spec: ModelSpec, champion: Champion, predictions: VersionPredictions) -> Signal:
    """Return the signal of the AUC that the newest predictions promise, before any label is due."""
    if champion.test_scores is None or not champion.test_scores.both_classes:
        return unknown("estimated_auc", NO_TEST_SCORES)
    scores, window, labels = _newest_scores(spec, predictions)
    calibrated = performance.platt_scaling(champion.test_scores)(scores)
    return performance.estimated_auc(spec.watch.performance, calibrated, window, labels, champion.test_metrics["auc"])


def _prediction_drift(spec: ModelSpec, champion: Champion, predictions: VersionPredictions) -> Signal:
    """Return the signal of the live scores' drift from those on the champion's test windows."""
    rules, test = spec.watch.drift, champion.test_scores
    if test is None:
        return unknown("prediction_drift", NO_TEST_SCORES)
    windows = {w: rows for w, rows in predictions.windows(spec.window).items() if len(rows) >= rules.min_rows}
    if not windows:
        reason = f"no window with {rules.min_rows} predictions of version {champion.version}"
        return unknown("prediction_drift", reason)
    knots = np.unique(np.quantile(test.scores, KNOT_QUANTILES)).tolist()
    past = [{"score": sketch_numbers(knots, test.scores[test.window == i])} for i in range(len(test.windows))]
    seasons = [data_signals.season(w, spec.window) for w in test.windows]
    reference = ReferenceWindows(past, seasons, {"score": knots})
    newest = list(windows)[-rules.recent_windows :]
    live = {w: {"score": sketch_numbers(knots, predictions.scores[windows[w]])} for w in newest}
    by_window = data_signals.compare_windows(rules, reference, live, spec.window)
    return drift.signal("prediction_drift", rules, by_window)


def _label_rate(spec: ModelSpec, champion: Champion, labelled: LabelledScores) -> Signal:
    if champion.test_scores is None or not len(labelled):
        return unknown("label_rate", "no labels to compare", labelled.windows)
    live, reference = (performance.label_rate(rows) for rows in (labelled, champion.test_scores))
    return quality.label_rate(spec.watch.quality, live, reference, labelled.windows)


def _skew(
    spec: ModelSpec, tables: Tables, champion: Champion, predictions: VersionPredictions, landed: Sequence[str]
) -> Signal:
    """Return the signal of what the servers read for the newest landed window, against the table's rows of the same keys."""
    by_window = predictions.windows(spec.window)
    in_both = [w for w in by_window if w in set(landed)]
    if not in_both:
        return unknown("skew", "no window with predictions has landed yet")
    newest = in_both[-1]
    rows = by_window[newest][-SKEW_ROWS:]
    table = tables.read(data_signals.SOURCE, [window_of(newest, spec.window)])
    table_keys = live_predictions.joined_keys(spec, table).combine_chunks()
    place = pc.index_in(predictions.keys.take(pa.array(rows)), value_set=table_keys)
    in_table = place.is_valid().to_numpy(zero_copy_only=False)
    table = table.take(place.drop_null())
    logged = [json.loads(text) for text in predictions.features.take(pa.array(rows[in_table])).to_pylist()]
    numbers = champion.encoding.knots
    differing = {
        f: _count_differing(table[f].to_pylist(), [row.get(f) for row in logged], numeric=f in numbers)
        for f in sketching.watched_features(champion.encoding)
        if f in table.column_names
    }
    return quality.skew(spec.watch.quality, differing, len(logged), (newest,))


def _count_differing(in_table: list[object], logged: list[object], *, numeric: bool) -> int:
    if numeric:
        a, b = as_numbers("table", in_table), as_numbers("log", logged)
        return int(np.count_nonzero(~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)))
    return sum(as_text(a) != as_text(b) for a, b in zip(in_table, logged, strict=True))
