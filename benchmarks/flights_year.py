"""The year of flights as one matrix, with what was known two hours before each departure, and a LightGBM model for each week.

The aggregates (late rates and mean delays of arrivals that had happened) are those the Data issue names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.local import flights

HOUR, DAY = 3600, 86_400
RAW = ("distance", "duration", "dep_minute", "arr_minute", *flights.WEATHER)
CATEGORIES = ("carrier", "origin", "dest")
#: Aggregated by which columns → over which hours back.
AGGREGATES: Mapping[tuple[str, ...], Sequence[int]] = {
    (): (1, 3, 6), ("origin",): (1, 3, 6, 168), ("carrier", "origin"): (1, 3, 6), ("dest",): (3, 6, 168, 672),
    ("carrier",): (24, 168, 672), ("origin", "dest"): (168, 672), ("tailnum",): (24, 168, 672), ("hour",): (168, 672),
}  # fmt: skip
PARAMETERS = {"objective": "binary", "learning_rate": 0.08, "num_leaves": 31, "min_data_in_leaf": 200, "max_bin": 63,
              "feature_fraction": 0.5, "bagging_fraction": 0.6, "bagging_freq": 1, "lambda_l2": 5.0, "verbose": -1,
              "seed": 17, "num_threads": 1}  # fmt: skip
TREES = 120


@dataclass(frozen=True)
class Year:
    """Flights that arrived, in order of departure; `day` counts from 0 on 1 January (UTC)."""

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.float64]
    day: NDArray[np.int64]


def year() -> Year:
    rows = flights.recorded(flights.data_folder())
    departure = rows["departure"].dt.epoch("s").to_numpy()
    asked = departure - int(flights.LEAD.total_seconds())
    known = rows.with_columns(hour=rows["departure"].dt.convert_time_zone(flights.ZONE).dt.hour())
    columns = {c: known[c].cast(pl.Float32).to_numpy() for c in RAW}
    columns |= {c: known[c].rank("dense").cast(pl.Float32).to_numpy() for c in CATEGORIES}
    local = known["departure"].dt.convert_time_zone(flights.ZONE)
    columns |= {"hour": local.dt.hour().to_numpy(), "weekday": local.dt.weekday().to_numpy()}
    for by, hours in AGGREGATES.items():
        columns |= _aggregates(known, by, hours, asked)
    columns |= _previous_leg(known, asked)
    arrived = known["late"].is_not_null().to_numpy()
    features = np.column_stack([np.asarray(c, dtype=np.float32) for c in columns.values()])
    labels = known["late"].fill_null(0).cast(pl.Float64).to_numpy()
    start = int(np.datetime64("2013-01-01", "s").astype(int))
    return Year(tuple(columns), features[arrived], labels[arrived], (departure[arrived] - start) // DAY)


def weekly_scores(of: Year, first: int, last: int) -> dict[int, NDArray[np.float64]]:
    """By the day on which it was trained, on labels due by then: that model's score for every row (only later ones count)."""
    import lightgbm

    found = {}
    categories = [of.names.index(c) for c in CATEGORIES]
    for day in range(first, last, 7):
        known = of.day < day - 1
        data = lightgbm.Dataset(of.features[known], of.labels[known], categorical_feature=categories)
        model = lightgbm.train(PARAMETERS, data, TREES)
        scores = np.full(len(of.labels), np.nan)
        later = of.day >= day
        scores[later] = np.asarray(model.predict(of.features[later]))
        found[day] = scores
    return found


def _groups(rows: pl.DataFrame, by: Sequence[str]) -> NDArray[np.int64]:
    if not by:
        return np.zeros(len(rows), dtype=np.int64)
    return rows.select(pl.struct(by).rank("dense").cast(pl.Int64)).to_series().to_numpy()


def _aggregates(
    rows: pl.DataFrame, by: Sequence[str], hours: Sequence[int], asked: NDArray[np.int64]
) -> dict[str, NDArray[np.floating]]:
    """Late rate, mean delay and count of the arrivals of the row's group within so many hours before it was asked."""
    happened = rows["arrived"].is_not_null().to_numpy()
    group, arrived = _groups(rows, by), rows["arrived"].dt.epoch("s").fill_null(0).to_numpy()
    place = group * (1 << 34) + arrived
    order = np.argsort(place[happened], kind="stable")
    held = place[happened][order]
    delay = np.clip(rows["arr_delay"].fill_null(0).to_numpy()[happened][order], -30, 180)
    late = rows["late"].fill_null(0).to_numpy()[happened][order]
    sums = [np.concatenate([[0.0], np.cumsum(v)]) for v in (late, delay)]
    newest = np.searchsorted(held, group * (1 << 34) + asked, side="right")
    found, name = {}, "_".join(by) or "all"
    for back in hours:
        oldest = np.searchsorted(held, group * (1 << 34) + asked - back * HOUR, side="right")
        count = newest - oldest
        for value, total in zip(("late", "delay"), sums, strict=True):
            mean = np.divide(total[newest] - total[oldest], count, out=np.full(len(count), np.nan), where=count > 0)
            found[f"{name}_{value}_{back}h"] = mean
        found[f"{name}_count_{back}h"] = count.astype(float)
    return found


def _previous_leg(rows: pl.DataFrame, asked: NDArray[np.int64]) -> dict[str, NDArray[np.floating]]:
    """Delay of the aircraft's last arrival that was known, and hours since."""
    happened = rows["arrived"].is_not_null().to_numpy()
    group, arrived = _groups(rows, ("tailnum",)), rows["arrived"].dt.epoch("s").fill_null(0).to_numpy()
    place = (group * (1 << 34) + arrived)[happened]
    order = np.argsort(place, kind="stable")
    last = np.searchsorted(place[order], group * (1 << 34) + asked, side="right") - 1
    at = np.maximum(last, 0)
    own = (last >= 0) & (group[happened][order][at] == group)
    since = (asked - arrived[happened][order][at]) / HOUR
    delay = rows["arr_delay"].fill_null(0).to_numpy()[happened][order][at]
    return {"leg_delay": np.where(own, delay, np.nan), "leg_hours": np.where(own, since, np.nan)}
