"""The timeline of a champion: its windows since the training, one by one, as the reports show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from include.domain.events import CauseRechecked, RetrainingDecided
from include.domain.monitoring import performance
from include.domain.monitoring.drift import FeatureDrift, ReferenceWindows
from include.domain.monitoring.performance import LabelledScores, MetricWithError
from include.domain.monitoring.sketch import Sketches
from include.domain.windows import window_of
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import data_signals, monitoring, online_comparison, sketching
from include.stages.monitoring.online_comparison import CONFIDENCE, Interval, VersionComparison
from include.stages.monitoring.services import MonitoringServices
from include.stages.release import champion as champions
from include.stages.release.champion import Champion
from include.stages.serving import live_predictions

#: A timeline has at most so many windows, the newest ones.
MAX_WINDOWS = 60
#: A window's rows are laid beside those of at most so many reference windows of its season, the newest ones.
REFERENCE_WINDOWS = 4


@dataclass(frozen=True)
class WindowMetrics:
    """The metrics of one window, None where they are not known.

    AUC, logloss and label rate come with their intervals. `estimated_auc` is the AUC that the scores promise without labels.
    """

    auc: Interval | None = None
    logloss: Interval | None = None
    label_rate: Interval | None = None
    estimated_auc: float | None = None
    mean_score: float | None = None


@dataclass(frozen=True)
class Timeline:
    """The windows since a champion's training, by label, oldest first.

    `feature_drift` and `metrics` are by window. `test_metrics` has the metrics of the test windows by name. `rechecks` say
    whether the cause of a request has gone. `comparisons` are those with other versions that were live. The sketches of the
    newest window, `newest`, and of the training windows, `reference`, are on the same bins, which `bin_names` describes by
    feature. `effect_bound` is the least effect that counts as drift.
    """

    model: str
    version: str
    feature_drift: Mapping[str, Sequence[FeatureDrift]]
    metrics: Mapping[str, WindowMetrics]
    test_metrics: Mapping[str, float]
    decisions: Sequence[RetrainingDecided]
    rechecks: Sequence[CauseRechecked]
    comparisons: Sequence[VersionComparison]
    reference: Sketches
    newest: Sketches
    bin_names: Mapping[str, Sequence[str]]
    effect_bound: float


@dataclass(frozen=True)
class DriftReportInput:
    """The rows that a drift report compares: those of the newest window and of like windows of the champion's training.

    `numeric` and `categorical` name the columns that have values in both. `run_id` is the champion's tracking run.
    """

    window: str
    version: str
    run_id: str | None
    reference: pa.Table
    newest: pa.Table
    numeric: list[str]
    categorical: list[str]


def build_timeline(spec: ModelSpec, services: MonitoringServices, as_of: datetime | None = None) -> Timeline | None:
    """Return the champion's timeline up to `as_of`, the data's clock when left out.

    It is None while there is no champion, or no window since its training. Raises Corrupt for a damaged champion.
    """
    tables = services.tables
    as_of = as_of or monitoring.data_clock(tables, spec.window)
    version = services.registry.version_by_alias(spec.name, "champion")
    if as_of is None or version is None:
        return None
    champion = champions.load(version, spec.window)
    landed = [w for w in tables.windows(data_signals.SOURCE) if window_of(w, spec.window).end <= as_of]
    past = [w for w in champion.train_windows if w in set(landed)]
    since = [w for w in landed if w > max(champion.train_windows)][-MAX_WINDOWS:]
    if not past or not since:
        return None
    windows = [*past, *since]
    sketches = sketching.window_sketches(tables, data_signals.SOURCE, champion.encoding, windows, spec.window)
    rules, past_sketches = spec.watch.drift, [sketches[w] for w in past]
    seasons = [data_signals.season(w, spec.window) for w in past]
    reference = ReferenceWindows(past_sketches, seasons, champion.encoding.knots)
    return Timeline(
        model=spec.name,
        version=champion.version,
        feature_drift=data_signals.compare_windows(rules, reference, {w: sketches[w] for w in since}, spec.window),
        metrics=_metrics_by_window(spec, services, champion, since, as_of),
        test_metrics={name: metric.value for name, metric in champion.test_metrics.items()},
        decisions=services.ledger.read(spec.name, RetrainingDecided),
        rechecks=services.ledger.read(spec.name, CauseRechecked),
        comparisons=online_comparison.compare_versions(spec, services, champion.version, as_of, last=MAX_WINDOWS),
        reference=sketching.merge_windows(past_sketches),
        newest=sketches[since[-1]],
        bin_names=sketching.bin_names(champion.encoding),
        effect_bound=rules.effect,
    )


def drift_report_input(spec: ModelSpec, services: MonitoringServices) -> DriftReportInput | None:
    """Return the rows of the newest window and of the training windows of its season.

    It is None where `build_timeline` returns None, and where no column has values in both.
    """
    tables = services.tables
    version = services.registry.version_by_alias(spec.name, "champion")
    landed = tables.windows(data_signals.SOURCE)
    if version is None or not landed:
        return None
    champion = champions.load(version, spec.window)
    past, newest = [w for w in champion.train_windows if w in set(landed)], landed[-1]
    if not past or newest <= max(champion.train_windows):
        return None
    season = data_signals.season(newest, spec.window)
    of_season = [w for w in past if data_signals.season(w, spec.window) == season] or past
    reference_rows, newest_rows = (
        tables.read(data_signals.SOURCE, [window_of(w, spec.window) for w in windows])
        for windows in (of_season[-REFERENCE_WINDOWS:], [newest])
    )
    features = [
        f
        for f in sketching.watched_features(champion.encoding)
        if _has_values(reference_rows, f) and _has_values(newest_rows, f)
    ]
    if not features:
        return None
    return DriftReportInput(
        window=newest,
        version=version.number,
        run_id=version.tags.get("mlflow_run_id"),
        reference=reference_rows,
        newest=newest_rows,
        numeric=[f for f in features if f in champion.encoding.knots],
        categorical=[f for f in features if f not in champion.encoding.knots],
    )


def _has_values(rows: pa.Table, column: str) -> bool:
    return column in rows.column_names and rows[column].null_count < len(rows)


def _metrics_by_window(
    spec: ModelSpec, services: MonitoringServices, champion: Champion, windows: Sequence[str], as_of: datetime
) -> dict[str, WindowMetrics]:
    predictions = live_predictions.predictions_of(services.signals, spec.name, champion.version, as_of)
    labelled = live_predictions.labelled(spec, services.tables, predictions, windows, as_of, last=MAX_WINDOWS)
    by_window = predictions.windows(spec.window)
    calibrate = performance.platt_scaling(champion.test_scores) if champion.test_scores else None
    metrics = {}
    for window in windows:
        scores = predictions.scores[by_window[window]] if window in by_window else np.zeros(0)
        metrics[window] = WindowMetrics(
            *_labelled_metrics(labelled.in_window(window)),
            estimated_auc=performance.expected_auc(calibrate(scores)) if calibrate and len(scores) else None,
            mean_score=float(scores.mean()) if len(scores) else None,
        )
    return metrics


def _labelled_metrics(rows: LabelledScores) -> tuple[Interval | None, Interval | None, Interval | None]:
    """Return AUC, logloss and label rate with their intervals, None where one class is missing."""
    if not rows.both_classes:
        return None, None, None
    return (
        _with_interval(performance.auc(rows)),
        _with_interval(performance.logloss(rows)),
        _with_interval(performance.label_rate(rows)),
    )


def _with_interval(metric: MetricWithError) -> Interval:
    return metric.value, *metric.interval(CONFIDENCE)
