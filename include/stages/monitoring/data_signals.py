"""What the landed windows say: feature drift, missing and unseen values, volume."""

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

SOURCE = "features"
NAMES = ("feature_drift", "missing", "unseen", "volume", "ks")


def signals(
    spec: ModelSpec, tables: Tables, champion: Champion, landed: Sequence[str]
) -> tuple[dict[str, list[FeatureDrift]], list[Signal]]:
    """What moved in each of the last windows since the champion's training, and the signals of `NAMES`."""
    past = [w for w in champion.train_windows if w in set(landed)]
    recent = [w for w in landed if w > max(champion.train_windows)][-spec.watch.drift.recent_windows :]
    if not recent or not past:
        reason = "no window since the champion's training data" if past else "the champion's training windows are gone"
        return {}, [unknown(n, reason) for n in NAMES]
    kept = sketching.of_windows(tables, SOURCE, champion.encoding, [*past, *recent], spec.window)
    for window in (recent[-1], *past):
        if lacking := sorted(set(sketching.features(champion.encoding)) - set(kept.get(window, ()))):
            reason = f"{window} lacks {', '.join(lacking)}, which the champion reads: another schema"
            return {}, [unknown(n, reason) for n in NAMES]
    return _against(spec, champion, {w: kept[w] for w in past}, {w: kept[w] for w in recent})


def compare(
    rules: drift.Drift, history: ReferenceWindows, windows: Mapping[str, Sketches], grain: Grain
) -> dict[str, list[FeatureDrift]]:
    """What moved in each window that has rows enough."""
    return {
        w: drift.compare(rules, history, sketches, season(w, grain))
        for w, sketches in windows.items()
        if _rows(sketches) >= rules.min_rows
    }


def season(window: str, grain: Grain) -> tuple[int, ...]:
    """What makes windows alike: the weekday, and within a day the hour of a working day or a weekend."""
    start = parse_utc(window)
    return (start.weekday(),) if grain is Grain.DAY else (start.weekday() >= 5, start.hour)


def _against(
    spec: ModelSpec, champion: Champion, past: Mapping[str, Sketches], recent: Mapping[str, Sketches]
) -> tuple[dict[str, list[FeatureDrift]], list[Signal]]:
    rules, newest = spec.watch, max(recent)
    reference = list(past.values())
    history = ReferenceWindows(reference, [season(w, spec.window) for w in past], champion.encoding.knots)
    moved = compare(rules.drift, history, recent, spec.window)
    return moved, [
        drift.signal("feature_drift", rules.drift, moved, champion.importance),
        quality.missing(rules.quality, reference, recent[newest], newest),
        quality.unseen(rules.quality, reference, recent[newest], newest),
        _volume(spec, past, recent),
        naive_checks.ks(rules.simple, sketching.summed(reference), recent[newest], newest),
    ]


def _volume(spec: ModelSpec, past: Mapping[str, Sketches], recent: Mapping[str, Sketches]) -> Signal:
    newest = max(recent)
    like = [w for w in past if season(w, spec.window) == season(newest, spec.window)]
    sizes = [_rows(past[w]) for w in (like if len(like) >= drift.MIN_SEASON_WINDOWS else past)]
    return quality.volume(spec.watch.quality, sizes, _rows(recent[newest]), newest, _gaps(recent, spec.window))


def _rows(sketches: Sketches) -> int:
    return next(iter(sketches.values())).rows


def _gaps(recent: Mapping[str, Sketches], grain: Grain) -> list[str]:
    """Windows between the recent ones that hold no row."""
    between = Window(parse_utc(min(recent)), window_of(max(recent), grain).end).split(grain)
    return [w.label for w in between if w.label not in recent]
