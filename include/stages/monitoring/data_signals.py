"""Signals of the landed windows: feature drift, missing and unseen values, volume."""

from collections.abc import Mapping, Sequence

from include.domain.monitoring import drift, naive_checks, quality
from include.domain.monitoring.drift import FeatureDrift, ReferenceWindows
from include.domain.monitoring.signal import Signal, unknown
from include.domain.monitoring.sketch import Sketches
from include.domain.windows import Grain, Window, parse_utc, window_of
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.monitoring import sketching
from include.stages.release.champion import Champion

#: The table whose windows are watched.
SOURCE = "features"
DATA_SIGNALS = ("feature_drift", "missing", "unseen", "volume", "ks")


def signals(spec: ModelSpec, tables: Tables, champion: Champion, landed: Sequence[str]) -> list[Signal]:
    """Return the signals of `DATA_SIGNALS` for the landed windows, by label, against those of the champion's training."""
    past = [w for w in champion.train_windows if w in set(landed)]
    recent = [w for w in landed if w > max(champion.train_windows)][-spec.watch.drift.recent_windows :]
    if not recent or not past:
        reason = "no window since the champion's training data" if past else "the champion's training windows are gone"
        return [unknown(name, reason) for name in DATA_SIGNALS]
    sketches = sketching.window_sketches(tables, SOURCE, champion.encoding, [*past, *recent], spec.window)
    for window in (recent[-1], *past):
        if lacking := sorted(set(sketching.watched_features(champion.encoding)) - set(sketches.get(window, ()))):
            reason = f"{window} lacks {', '.join(lacking)}, which the champion reads: another schema"
            return [unknown(name, reason) for name in DATA_SIGNALS]
    return _compared(spec, champion, {w: sketches[w] for w in past}, {w: sketches[w] for w in recent})


def compare_windows(
    rules: drift.Drift, reference: ReferenceWindows, windows: Mapping[str, Sketches], grain: Grain
) -> dict[str, list[FeatureDrift]]:
    """Return the drift of each feature, by the label of each window that has rows enough."""
    return {
        label: drift.compare(rules, reference, sketches, season(label, grain))
        for label, sketches in windows.items()
        if _rows(sketches) >= rules.min_rows
    }


def season(window: str, grain: Grain) -> tuple[int, ...]:
    """Return what like windows have in common: the weekday, or for hours the hour of a working day or of a weekend."""
    start = parse_utc(window)
    return (start.weekday(),) if grain is Grain.DAY else (start.weekday() >= 5, start.hour)


def _compared(
    spec: ModelSpec, champion: Champion, past: Mapping[str, Sketches], recent: Mapping[str, Sketches]
) -> list[Signal]:
    rules, newest = spec.watch, max(recent)
    sketches = list(past.values())
    reference = ReferenceWindows(sketches, [season(w, spec.window) for w in past], champion.encoding.knots)
    feature_drift = compare_windows(rules.drift, reference, recent, spec.window)
    return [
        drift.signal("feature_drift", rules.drift, feature_drift, champion.importance),
        quality.missing(rules.quality, sketches, recent[newest], newest),
        quality.unseen(rules.quality, sketches, recent[newest], newest),
        _volume(spec, past, recent),
        naive_checks.ks(rules.simple, sketching.merge_windows(sketches), recent[newest], newest),
    ]


def _volume(spec: ModelSpec, past: Mapping[str, Sketches], recent: Mapping[str, Sketches]) -> Signal:
    newest = max(recent)
    of_season = [w for w in past if season(w, spec.window) == season(newest, spec.window)]
    compared = of_season if len(of_season) >= drift.MIN_SEASON_WINDOWS else past
    reference_rows = [_rows(past[w]) for w in compared]
    empty = _empty_windows(recent, spec.window)
    return quality.volume(spec.watch.quality, reference_rows, _rows(recent[newest]), newest, empty)


def _rows(sketches: Sketches) -> int:
    return next(iter(sketches.values())).rows


def _empty_windows(recent: Mapping[str, Sketches], grain: Grain) -> list[str]:
    """Return the labels between the first and last recent window that no window has."""
    between = Window(parse_utc(min(recent)), window_of(max(recent), grain).end).split(grain)
    return [w.label for w in between if w.label not in recent]
