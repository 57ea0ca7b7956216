"""Measure the speed of the drift statistics beside Evidently's, their memory, and policies of retraining over a year.

python -m benchmarks watch                   everything, as `make bench-watch` does; the last line is JSON
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

from benchmarks.monitoring.flights_year import Year, load_year, weekly_scores
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
VALUES = np.array([f"{v:08x}" for v in range(1200)])
#: Rows that are read at once.
PIECE_ROWS = 100_000
SPEED, EVIDENTLY_ROWS = 1_000_000, 20_000
MEMORY_ROWS, WINDOW = (1_000_000, 10_000_000, 100_000_000), "2026-01-01"
#: The day of the first training, the days between two decisions, and the days of the test windows.
FIRST, WEEK, TEST = 90, 7, 14
#: Settings of the watch that are compared; its defaults are among them, so that one sees how much depends on them.
CONFIDENCES, AGES = (0.6, 0.8, 0.9, 0.95), (14, 21, 28, 91)
NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
CALENDAR = tuple(window_label(NEW_YEAR + timedelta(days=d)) for d in range(366))


def rows(count: int, seed: int) -> pa.Table:
    """Draw rows of Criteo's shape: 13 numbers with gaps, 26 categories as text."""
    random = np.random.default_rng(seed)
    numbers = {n: pa.array(random.normal(size=count), mask=random.random(count) < 0.1) for n in NUMBERS}
    values = pa.array(VALUES)
    indices = random.zipf(1.2, size=(len(CATEGORIES), count)) % len(VALUES)
    return pa.table({**numbers, **{c: values.take(pa.array(p)) for c, p in zip(CATEGORIES, indices, strict=True)}})


def speed() -> dict[str, float]:
    """Return the rows per CPU second of the watch, which includes comparing with the reference windows, and of Evidently."""
    parts = [rows(PIECE_ROWS, i) for i in range(SPEED // PIECE_ROWS)]
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


class PoolTables:
    """Tables with one window of `rows` rows, cut from a pool at random places; they count the `bytes` of the sketches written."""

    def __init__(self, pool: pa.Table, rows: int) -> None:
        self._pool, self._rows, self.bytes = pool, rows, 0

    def contents(self, _table: str) -> dict[str, str]:
        return {WINDOW: "all"}

    def version(self, _table: str) -> None:
        return None

    def pieces(self, _table: str, _window: Window) -> Iterator[pa.Table]:
        random = np.random.default_rng(1)
        for _ in range(self._rows // PIECE_ROWS):
            yield self._pool.slice(int(random.integers(0, len(self._pool) - PIECE_ROWS)), PIECE_ROWS)

    def replace(self, _table: str, content: Mapping[Window, pa.Table], _run: str) -> int:
        self.bytes = sum(part.nbytes for part in content.values())
        return 0


def memory() -> dict[str, dict[str, float]]:
    """Return, by the rows of a window, the process's peak MiB while the stage sketches it, and the rows per CPU second."""
    pool, figures = rows(3 * PIECE_ROWS, 0), {}
    for count in MEMORY_ROWS:
        tables, started_at = PoolTables(pool, count), time.process_time()
        sketching.window_sketches(tables, "features", ENCODING, [WINDOW], Grain.DAY)  # type: ignore[arg-type]
        figures[f"{count // 1_000_000}M"] = {
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "rows_per_cpu_s": round(count / (time.process_time() - started_at)),
            "kept_kib": round(tables.bytes / 1024),
        }
    return figures


def _evidently(reference: pa.Table, newest: pa.Table) -> float:
    """Return the rows per CPU second of Evidently's report on the newest rows."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    earlier, current = (Dataset.from_pandas(t.to_pandas(), data_definition=columns) for t in (reference, newest))
    start = time.process_time()
    Report([DataDriftPreset()]).run(current, earlier).dict()
    return len(newest) / (time.process_time() - start)


@dataclass
class Replay:
    """The year with every week's model, named by its day; a policy decides on the first day of each week from April on."""

    year: Year
    scores: Mapping[int, NDArray[np.float64]]

    def between(self, first: int, last: int, model: int) -> LabelledScores:
        """Return the labels of the days `[first, last)` with the scores of the model trained on the day `model`."""
        chosen = (self.year.day >= first) & (self.year.day < last)
        names = CALENDAR[first:last]
        return LabelledScores(
            self.year.labels[chosen], self.scores[model][chosen], self.year.day[chosen] - first, names
        )

    def run(self, policy: Callable[["Replay", int, int], bool]) -> tuple[float, list[int]]:
        """Return the policy's mean logloss from April on, and the days of its trainings after the first."""
        model, trained, losses = FIRST, [], []
        for day in range(FIRST, 365, WEEK):
            if day > FIRST and policy(self, day, model):
                model = day
                trained.append(day)
            live = self.between(day, min(day + WEEK, 365), model)
            losses.append(row_losses(live.labels, live.scores))
        return float(np.concatenate(losses).mean()), trained

    def test(self, model: int) -> LabelledScores:
        """Return the champion's test windows: the last 14 days before its training, scored by the model trained before them."""
        return self.between(model - TEST, model, model - TEST)

    def live(self, day: int, model: int) -> LabelledScores:
        """Return the last week whose labels are due, as far as the model served it."""
        return self.between(max(model, day - 1 - WEEK), day - 1, model)


def watch_policy(rules: Retraining, bounds: Performance) -> Callable[[Replay, int, int], bool]:
    """Return a policy by the project's own rules: live performance against the test windows, age and cool-down."""

    def decide(replay: Replay, day: int, model: int) -> bool:
        measured = signals(replay, bounds, day, model)
        measured.append(retraining.age(rules, _date_of(model), _date_of(day)))
        context = RetrainingContext(_date_of(day), data_ends=_date_of(model))
        return retraining.decide(rules, measured, context, str(day)).start

    return decide


def signals(replay: Replay, bounds: Performance, day: int, model: int) -> list[Signal]:
    """Return the signals of the model's performance on that day."""
    test = replay.test(model)
    test_metrics = {"logloss": performance.logloss(test), "auc": performance.auc(test)}
    return performance.signals(bounds, replay.live(day, model), test_metrics)


def ks_rule(replay: Replay, day: int, model: int) -> bool:
    """Return whether any feature of the last week has p < 0.05 against the training data."""
    year = replay.year
    trained, last_week = year.features[year.day < model], year.features[(year.day >= day - WEEK) & (year.day < day)]
    pairs = ((_without_nan(trained[:, i]), _without_nan(last_week[:, i])) for i in range(trained.shape[1]))
    return any(ks_2samp(a, b, method="asymp").pvalue < 0.05 for a, b in pairs if len(a) and len(b))


def score_rule(replay: Replay, day: int, model: int) -> bool:
    """Return whether the mean score of the last week is over 10 % off that of the test windows."""
    usual, live = replay.test(model).scores.mean(), replay.live(day, model).scores.mean()
    return bool(abs(live / usual - 1) > 0.1)


def policies() -> dict[str, Callable[[Replay, int, int], bool]]:
    """Return the policies by name: each decides from the replay, the day and the day of the model whether to train."""
    return {
        "never": lambda *_: False,
        "monthly": lambda _, day, model: day - model >= 28,
        "weekly": lambda *_: True,
        "KS p < 0.05 per feature": ks_rule,
        "mean score moved over 10 %": score_rule,
        "every two weeks": lambda _, day, model: day - model >= 14,
        "watch": watch_policy(Retraining(), Performance()),
        **{
            f"watch, confidence {c}, max_age {a}d": watch_policy(
                Retraining(max_age=timedelta(days=a)), Performance(confidence=c)
            )
            for c in CONFIDENCES
            for a in AGES
        },
    }


def yearly() -> dict[str, dict[str, float]]:
    """Return by policy the mean logloss of April to December, and the number of trainings after the first."""
    year = load_year()
    replay = Replay(year, weekly_scores(year, FIRST - TEST, 365))
    table = {name: replay.run(policy) for name, policy in policies().items()}
    return {name: {"logloss": round(loss, 4), "runs": len(trained)} for name, (loss, trained) in table.items()}


def _without_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[~np.isnan(values)]


def _date_of(day: int) -> datetime:
    return NEW_YEAR + timedelta(days=day)


def _year_holds(table: Mapping[str, Mapping[str, float]]) -> bool:
    return table["watch"]["logloss"] <= table["weekly"]["logloss"] + 0.001 and table["watch"]["runs"] <= 20


def main() -> None:
    """Run the sections named on the command line, or all, and print their figures."""
    sections = sys.argv[1:] or ("speed", "memory", "year")
    figures: dict[str, Any] = {}
    holds: dict[str, bool] = {}
    if "speed" in sections:
        figures["speed"] = speed()
        holds["speed"] = figures["speed"]["times"] >= 50
    if "memory" in sections:
        figures["memory"] = memory()
        peaks = [each["peak_mib"] for each in figures["memory"].values()]
        holds["memory"] = peaks[-1] <= 1.1 * peaks[0]
    if "year" in sections:
        figures["year"] = yearly()
        for name, row in figures["year"].items():
            print(f"{name:40} {row['logloss']:.4f} {row['runs']:3d}")
        holds["year"] = _year_holds(figures["year"])
    bounds = {"times": 50, "memory_growth": 1.1, "year_logloss_over_weekly": 0.001, "year_runs": 20}
    print(json.dumps({**figures, "bounds": bounds, "holds": holds}))
