"""The year of flights as one matrix, with the shipped features, and a LightGBM model for each week."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.training.quality import year as features_of_year
from include.local import flights
from include.spec.loading import find

DAY = 86_400
#: Those with enough flights a category for trees; the hour and the weekday are numbers.
CATEGORIES = ("carrier", "origin", "dest")
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "max_bin": 63,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.6,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "verbose": -1,
    "seed": 17,
    "num_threads": 1,
}
TREES = 120


@dataclass(frozen=True)
class Year:
    """Flights that arrived, in order of departure; `day` counts from 0 on 1 January (UTC)."""

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.float64]
    day: NDArray[np.int64]


def year() -> Year:
    spec = find("flights")
    rows = features_of_year(spec).held["features"].drop_nulls(spec.columns.label)
    local = rows["departure"].dt.convert_time_zone(flights.ZONE)
    columns = {c: rows[c].rank("dense") for c in CATEGORIES} | {"hour": local.dt.hour(), "weekday": local.dt.weekday()}
    columns |= {c: rows[c] for c in spec.numeric}
    features = np.column_stack([column.cast(pl.Float32).to_numpy() for column in columns.values()])
    start = int(np.datetime64("2013-01-01", "s").astype(int))
    days = (rows["departure"].dt.epoch("s").to_numpy() - start) // DAY
    return Year(tuple(columns), features, rows["late"].cast(pl.Float64).to_numpy(), days)


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
