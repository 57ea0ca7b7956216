"""`make bench-watch`: the speed of drift statistics beside Evidently's, their memory, and a year of retraining policies.

python -m benchmarks watch                   everything; the last line is JSON
python -m benchmarks watch year              the yearly table alone (about ten minutes of two cores)
python -m benchmarks watch speed memory      some of the three
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks.monitoring.flights_year import Year, weekly_scores, year
from include.domain.features.encoding import Encoding
from include.domain.metrics import row_losses
from include.domain.monitoring import drift, performance, retraining
from include.domain.monitoring.drift import Drift, ReferenceWindows
from include.domain.monitoring.performance import LabelledScores, Performance
from include.domain.monitoring.retraining import Retraining, RetrainingContext
from include.domain.monitoring.signal import Signal
from include.domain.windows import Grain, Window, window_label
from include.stages.monitoring import sketching

NUMBERS, CATEGORIES = [f"I{i}" for i in range(13)], [f"C{i}" for i in range(26)]
ENCODING = Encoding(
    time="time",
    zone="UTC",
    time_parts=(),
    categorical=tuple(CATEGORIES),
    numeric=tuple(NUMBERS),
    vocabulary={c: {f"{v:08x}": v + 2 for v in range(1000)} for c in CATEGORIES},
    knots={n: tuple(np.linspace(-2.5, 2.5, 65)) for n in NUMBERS},
)
WORDS = np.array([f"{v:08x}" for v in range(1200)])
#: Rows read at once, of a table of any size.
PART = 100_000
SPEED, EVIDENTLY_ROWS = 1_000_000, 20_000
MEMORY_ROWS, WINDOW = (1_000_000, 10_000_000, 100_000_000), "2026-01-01"
FIRST, WEEK, TEST = 90, 7, 14
#: The watch's defaults stand among these, so that one sees how much hangs on them; looked at on the first day of each week.
CONFIDENCES, AGES = (0.6, 0.8, 0.9, 0.95), (14, 21, 28, 91)
NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
CALENDAR = tuple(window_label(NEW_YEAR + timedelta(days=d)) for d in range(366))


def rows(count: int, seed: int) -> pa.Table:
    """Criteo's shape: 13 numbers with gaps, 26 categories as text."""
    random = np.random.default_rng(seed)
    numbers = {n: pa.array(random.normal(size=count), mask=random.random(count) < 0.1) for n in NUMBERS}
    words = pa.array(WORDS)
    places = random.zipf(1.2, size=(len(CATEGORIES), count)) % len(WORDS)
    return pa.table({**numbers, **{c: words.take(pa.array(p)) for c, p in zip(CATEGORIES, places, strict=True)}})


def speed() -> dict[str, float]:
    """Rows per second of both, on one core's work; the watch's includes the comparison with 28 reference windows."""
    parts = [rows(PART, i) for i in range(SPEED // PART)]
    reference = [sketching.sketch_rows(ENCODING, p.slice(0, 20_000)) for p in parts] * 3
    history = ReferenceWindows(reference, [0] * len(reference), ENCODING.knots)
    start = time.process_time()
    whole = sketching.sketch_rows(ENCODING, parts[0])
    for part in parts[1:]:
        whole = {f: s + whole[f] for f, s in sketching.sketch_rows(ENCODING, part).items()}
    drift.compare(Drift(), history, whole, 0)
    ours = SPEED / (time.process_time() - start)
    theirs = _evidently(parts[0].slice(0, EVIDENTLY_ROWS), parts[1].slice(0, EVIDENTLY_ROWS))
    return {
        "watch_rows_per_cpu_s": round(ours),
        "evidently_rows_per_cpu_s": round(theirs),
        "times": round(ours / theirs, 1),
    }


class Endless:
    """Tables whose one window holds `rows` rows, cut out of a pool at other places each time; the stage's sketches are kept."""

    def __init__(self, pool: pa.Table, rows: int) -> None:
        self._pool, self._rows, self.bytes = pool, rows, 0

    def contents(self, _table: str) -> dict[str, str]:
        return {WINDOW: "all"}

    def version(self, _table: str) -> None:
        return None

    def pieces(self, _table: str, _window: Window) -> Iterator[pa.Table]:
        random = np.random.default_rng(1)
        for _ in range(self._rows // PART):
            yield self._pool.slice(int(random.integers(0, len(self._pool) - PART)), PART)

    def replace(self, _table: str, content: Mapping[Window, pa.Table], _run: str) -> int:
        self.bytes = sum(part.nbytes for part in content.values())
        return 0


def memory() -> dict[str, dict[str, float]]:
    """Peak MiB of this process while the stage sketches one window of so many rows, and rows per second."""
    pool, found = rows(3 * PART, 0), {}
    for count in MEMORY_ROWS:
        tables, begun = Endless(pool, count), time.process_time()
        sketching.window_sketches(tables, "features", ENCODING, [WINDOW], Grain.DAY)  # type: ignore[arg-type]
        found[f"{count // 1_000_000}M"] = {
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "rows_per_cpu_s": round(count / (time.process_time() - begun)),
            "kept_kib": round(tables.bytes / 1024),
        }
    return found


def _evidently(reference: pa.Table, newest: pa.Table) -> float:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    then, now = (Dataset.from_pandas(t.to_pandas(), data_definition=columns) for t in (reference, newest))
    start = time.process_time()
    Report([DataDriftPreset()]).run(now, then).dict()
    return len(newest) / (time.process_time() - start)


@dataclass
class Replay:
    """The year with every week's model; a policy is asked on the first day of each week from April."""

    of: Year
    scores: Mapping[int, NDArray[np.float64]]

    def between(self, first: int, last: int, model: int) -> LabelledScores:
        """What that day's model says of the days `[first, last)`."""
        chosen = (self.of.day >= first) & (self.of.day < last)
        names = CALENDAR[first:last]
        return LabelledScores(self.of.labels[chosen], self.scores[model][chosen], self.of.day[chosen] - first, names)

    def run(self, policy: Callable[["Replay", int, int], bool]) -> tuple[float, list[int]]:
        """Mean logloss from April on, and the days of its trainings after the first."""
        model, trained, lost = FIRST, [], []
        for day in range(FIRST, 365, WEEK):
            if day > FIRST and policy(self, day, model):
                model = day
                trained.append(day)
            live = self.between(day, min(day + WEEK, 365), model)
            lost.append(row_losses(live.labels, live.scores))
        return float(np.concatenate(lost).mean()), trained

    def test(self, model: int) -> LabelledScores:
        """The champion's test windows: the last 14 days before its training, by the model trained before them."""
        return self.between(model - TEST, model, model - TEST)

    def live(self, day: int, model: int) -> LabelledScores:
        """The last week whose labels are due."""
        return self.between(max(model, day - 1 - WEEK), day - 1, model)


def watch(rules: Retraining, bounds: Performance) -> Callable[[Replay, int, int], bool]:
    """The project's own rules: live performance against the test windows, age and cool-down."""

    def decide(replay: Replay, day: int, model: int) -> bool:
        found = signals(replay, bounds, day, model)
        found.append(retraining.age(rules, _at(model), _at(day)))
        context = RetrainingContext(_at(day), data_ends=_at(model))
        return retraining.decide(rules, found, context, str(day)).start

    return decide


def signals(replay: Replay, bounds: Performance, day: int, model: int) -> list[Signal]:
    test = replay.test(model)
    measured = {"logloss": performance.logloss(test), "auc": performance.auc(test)}
    return performance.signals(bounds, replay.live(day, model), measured)


def ks_rule(replay: Replay, day: int, model: int) -> bool:
    """Any feature of the last week with p < 0.05 against the training data."""
    of = replay.of
    then, now = of.features[of.day < model], of.features[(of.day >= day - WEEK) & (of.day < day)]
    pairs = ((_known(then[:, i]), _known(now[:, i])) for i in range(then.shape[1]))
    return any(ks_2samp(a, b, method="asymp").pvalue < 0.05 for a, b in pairs if len(a) and len(b))


def score_rule(replay: Replay, day: int, model: int) -> bool:
    """The mean score of the last week is over 10 % off that of the test windows."""
    usual, now = replay.test(model).scores.mean(), replay.live(day, model).scores.mean()
    return bool(abs(now / usual - 1) > 0.1)


def policies() -> dict[str, Callable[[Replay, int, int], bool]]:
    return {
        "never": lambda *_: False,
        "monthly": lambda _, day, model: day - model >= 28,
        "weekly": lambda *_: True,
        "KS p < 0.05 per feature": ks_rule,
        "mean score moved over 10 %": score_rule,
        "every two weeks": lambda _, day, model: day - model >= 14,
        "watch": watch(Retraining(), Performance()),
        **{
            f"watch, confidence {c}, max_age {a}d": watch(
                Retraining(max_age=timedelta(days=a)), Performance(confidence=c)
            )
            for c in CONFIDENCES
            for a in AGES
        },
    }


def yearly() -> dict[str, dict[str, float]]:
    """By policy: mean logloss of April to December, and trainings after the first."""
    of = year()
    replay = Replay(of, weekly_scores(of, FIRST - TEST, 365))
    table = {name: replay.run(policy) for name, policy in policies().items()}
    return {name: {"logloss": round(loss, 4), "runs": len(trained)} for name, (loss, trained) in table.items()}


def _known(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[~np.isnan(values)]


def _at(day: int) -> datetime:
    return NEW_YEAR + timedelta(days=day)


def _year_holds(table: Mapping[str, Mapping[str, float]]) -> bool:
    return table["watch"]["logloss"] <= table["weekly"]["logloss"] + 0.001 and table["watch"]["runs"] <= 20


def main() -> None:
    asked = sys.argv[1:] or ("speed", "memory", "year")
    figures: dict[str, Any] = {}
    holds: dict[str, bool] = {}
    if "speed" in asked:
        figures["speed"] = speed()
        holds["speed"] = figures["speed"]["times"] >= 50
    if "memory" in asked:
        figures["memory"] = memory()
        peaks = [each["peak_mib"] for each in figures["memory"].values()]
        holds["memory"] = peaks[-1] <= 1.1 * peaks[0]
    if "year" in asked:
        figures["year"] = yearly()
        for name, row in figures["year"].items():
            print(f"{name:40} {row['logloss']:.4f} {row['runs']:3d}")
        holds["year"] = _year_holds(figures["year"])
    bounds = {"times": 50, "memory_growth": 1.1, "year_logloss_over_weekly": 0.001, "year_runs": 20}
    print(json.dumps({**figures, "bounds": bounds, "holds": holds}))
