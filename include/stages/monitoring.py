"""Monitoring: look at production, say what is seen, and decide whether to retrain."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import numpy as np

from include.domain import drift, performance, quality, retraining
from include.domain.drift import History, Moved
from include.domain.errors import Corrupt
from include.domain.retraining import Decision, Situation
from include.domain.signal import Signal, State, unknown
from include.domain.sketch import Sketches, of_numbers
from include.domain.windows import Grain, Window, label, parse
from include.ports import Ledger, Registry, Signals, Tables
from include.spec import ModelSpec
from include.stages import champion as champions
from include.stages import production, sketching
from include.stages.champion import Champion
from include.stages.production import Served
from include.stages.sketching import window_of

#: Every signal, in the order in which they are shown.
NAMES = (
    "age", "labels", "logloss", "auc", "calibration", "estimated_auc", "label_rate",
    "feature_drift", "prediction_drift", "missing", "unseen", "volume", "skew",
)  # fmt: skip
SOURCE = "features"


@dataclass(frozen=True)
class Look:
    """What was seen at once. `as_of`: the data's clock, end of the newest landed window; `moved`: drift per window."""

    as_of: datetime | None
    newest: str
    version: str | None
    trained: datetime | None
    signals: tuple[Signal, ...]
    moved: Mapping[str, Sequence[Moved]]

    def __getitem__(self, name: str) -> Signal:
        return next(s for s in self.signals if s.name == name)


def clock(tables: Tables, grain: Grain) -> datetime | None:
    """The end of the newest landed window; None before the first."""
    landed = tables.windows(SOURCE)
    return window_of(landed[-1], grain).end if landed else None


def sense(
    spec: ModelSpec, *, tables: Tables, signals: Signals, registry: Registry, as_of: datetime | None = None
) -> Look:
    """Every signal of `NAMES`; what cannot be known is `unknown` with its reason. `as_of` cuts the data off earlier.

    Raises Unavailable when a part of the stack does not answer.
    """
    as_of = as_of or clock(tables, spec.window)
    version = registry.alias(spec.name, "champion")
    if as_of is None or version is None:
        return _blind(as_of, None, "no champion yet" if version is None else "no window has landed yet")
    try:
        champion = champions.load(version, spec.window)
    except Corrupt as fault:
        return _blind(as_of, version.number, str(fault))
    landed = [w for w in tables.windows(SOURCE) if window_of(w, spec.window).end <= as_of]
    seen = production.served(signals, spec.name, champion.version, as_of)
    moved, from_data = _data_signals(spec, tables, champion, landed)
    found = [*from_data, *_traffic_signals(spec, tables, champion, seen, landed, as_of)]
    found.append(retraining.age(spec.watch.retraining, champion.ends, as_of))
    by_name = {s.name: s for s in found}
    shown = tuple(by_name.get(n, unknown(n, "not measured")) for n in NAMES)
    return Look(as_of, landed[-1] if landed else "", champion.version, champion.ends, shown, moved)


def decide_and_record(spec: ModelSpec, look: Look, ledger: Ledger, *, run: str, running: str | None = None,
                      paused: bool = False) -> Decision:  # fmt: skip
    """The decision and its row in the ledger; the same `run` asked again gets the answer it was given.

    `running`: the training run in flight; `paused`: a person has stopped retraining.
    """
    rows = ledger.read(spec.name, "decision")
    for row in rows:
        if row["run"] == run:
            return Decision(row["start"], row["sentence"], row["cause"], row["request"])
    _record_cleared(spec, look, ledger, rows)
    if look.as_of is None or look.trained is None:
        decision = Decision(False, look["age"].sentence)
    else:
        situation = Situation(
            look.as_of, look.trained, _last_request(rows), running, paused, _hours(spec, ledger, look.as_of)
        )
        decision = retraining.decide(spec.watch.retraining, look.signals, situation, look.newest)
    ledger.append(
        spec.name, "decision", run=run, as_of=look.as_of, window=look.newest, champion=look.version,
        **asdict(decision), signals=[asdict(s) for s in look.signals],
    )  # fmt: skip
    return decision


def _data_signals(spec: ModelSpec, tables: Tables, champion: Champion,
                  landed: Sequence[str]) -> tuple[dict[str, list[Moved]], list[Signal]]:  # fmt: skip
    """What the landed windows say: feature drift, missing, unseen, volume."""
    rules = spec.watch
    past = [w for w in champion.train_windows if w in set(landed)]
    since = [w for w in landed if w > max(champion.train_windows)]
    recent = since[-rules.drift.recent_windows :]
    names = ("feature_drift", "missing", "unseen", "volume")
    if not recent or not past:
        reason = "no window since the champion's training data" if past else "the champion's training windows are gone"
        return {}, [unknown(n, reason) for n in names]
    kept = sketching.of_windows(tables, SOURCE, champion.encoding, [*past, *recent], spec.window)
    lacking = sorted(set(sketching.features(champion.encoding)) - set(kept[recent[-1]]))
    if lacking:
        reason = f"{recent[-1]} lacks {', '.join(lacking)}, which the champion reads: another schema"
        return {}, [unknown(n, reason) for n in names]
    history = History([kept[w] for w in past], [season(w, spec.window) for w in past], champion.encoding.knots)
    moved = _compare(rules.drift, history, {w: kept[w] for w in recent}, spec.window)
    newest, reference = recent[-1], [kept[w] for w in past]
    return moved, [
        drift.signal("feature_drift", rules.drift, moved, champion.importance),
        quality.missing(rules.quality, reference, kept[newest], newest),
        quality.unseen(rules.quality, reference, kept[newest], newest),
        _volume(spec, kept, past, newest, _gaps(recent, spec.window)),
    ]


def _traffic_signals(spec: ModelSpec, tables: Tables, champion: Champion, seen: Served, landed: Sequence[str],
                     as_of: datetime) -> list[Signal]:  # fmt: skip
    """What the champion's own predictions say: prediction drift, live performance, labels."""
    rules = spec.watch
    joined = production.labelled(spec, tables, seen, landed, as_of)
    fresh = [w for w in landed if parse(w) >= champion.ends]
    return [
        _prediction_drift(spec, champion, seen),
        *performance.signals(rules.performance, joined, champion.measured),
        _label_rate(spec, champion, joined),
        retraining.new_labels(rules.retraining, production.outcomes(spec, tables, fresh).num_rows, tuple(fresh)),
    ]


def _prediction_drift(spec: ModelSpec, champion: Champion, seen: Served) -> Signal:
    """The live scores against those on the champion's test windows."""
    rules = spec.watch.drift
    if champion.test is None:
        return unknown("prediction_drift", "the scores of the champion's test windows are not kept")
    windows = {w: rows for w, rows in seen.windows(spec.window).items() if len(rows) >= rules.min_rows}
    if not windows:
        return unknown("prediction_drift", f"no window with {rules.min_rows} predictions of version {champion.version}")
    knots = np.unique(np.quantile(champion.test.scores, np.linspace(0, 1, 65)))
    test = [{"score": of_numbers(knots.tolist(), champion.test.scores[champion.test.window == i])}
            for i in range(len(champion.test.windows))]  # fmt: skip
    history = History(test, [season(w, spec.window) for w in champion.test.windows], {"score": knots.tolist()})
    live = {
        w: {"score": of_numbers(knots.tolist(), seen.scores[windows[w]])}
        for w in list(windows)[-rules.recent_windows :]
    }
    return drift.signal("prediction_drift", rules, _compare(rules, history, live, spec.window))


def _label_rate(spec: ModelSpec, champion: Champion, joined: performance.Scored) -> Signal:
    if champion.test is None or not len(joined):
        return unknown("label_rate", "no labels to compare", joined.windows)
    live, then = (performance.clustered(s.labels, s.window) for s in (joined, champion.test))
    return quality.label_rate(spec.watch.quality, live, then, joined.windows)


def _volume(
    spec: ModelSpec, kept: Mapping[str, Sketches], past: Sequence[str], newest: str, gaps: Sequence[str]
) -> Signal:
    like = [w for w in past if season(w, spec.window) == season(newest, spec.window)]
    sizes = [_rows(kept[w]) for w in (like if len(like) >= drift.MIN_LIKE else past)]
    return quality.volume(spec.watch.quality, sizes, _rows(kept[newest]), newest, gaps)


def _rows(sketches: Sketches) -> int:
    return next(iter(sketches.values())).rows


def _gaps(recent: Sequence[str], grain: Grain) -> list[str]:
    """Windows between the recent ones that hold no row."""
    between = Window(parse(recent[0]), window_of(recent[-1], grain).end).split(grain)
    return [label(w.start) for w in between if label(w.start) not in recent]


def _compare(
    rules: drift.Drift, history: History, windows: Mapping[str, Sketches], grain: Grain
) -> dict[str, list[Moved]]:
    return {
        w: drift.compare(rules, history, sketches, season(w, grain))
        for w, sketches in windows.items()
        if _rows(sketches) >= rules.min_rows
    }


def season(window: str, grain: Grain) -> tuple[int, ...]:
    """What makes windows alike: the weekday, and within a day the hour."""
    start = parse(window)
    return (start.weekday(),) if grain is Grain.DAY else (start.weekday() >= 5, start.hour)


def _blind(as_of: datetime | None, version: str | None, reason: str) -> Look:
    return Look(as_of, "", version, None, tuple(unknown(n, reason) for n in NAMES), {})


def _last_request(rows: Sequence[Mapping[str, object]]) -> datetime | None:
    asked = [parse(str(row["as_of"])) for row in rows if row["start"]]
    return max(asked, default=None)


def _hours(spec: ModelSpec, ledger: Ledger, as_of: datetime) -> float:
    """Training hours of the last 30 days, from the ledger's `training` rows."""
    rows = [r for r in ledger.read(spec.name, "training") if parse(r["as_of"]) > as_of - timedelta(days=30)]
    return sum(float(r["hours"]) for r in rows)


def _record_cleared(spec: ModelSpec, look: Look, ledger: Ledger, rows: Sequence[Mapping[str, object]]) -> None:
    """Once after a retraining: has its cause gone with the new champion?"""
    asked = next((r for r in reversed(rows) if r["start"]), None)
    told = {r["request"] for r in ledger.read(spec.name, "cleared")}
    if asked is None or look.version is None or look.version == asked["champion"] or asked["request"] in told:
        return
    now = look[str(asked["cause"])]
    if now.state is not State.UNKNOWN:
        ledger.append(spec.name, "cleared", request=asked["request"], cleared=now.state is not State.FIRE,
                      champion=look.version, sentence=now.sentence)  # fmt: skip
