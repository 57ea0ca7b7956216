"""Load the year of flights as one matrix with the shipped features, and train a LightGBM model for each week of it."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.training.data import flights_features
from include.local import flights
from include.spec.loading import find

DAY = 86_400
#: The columns with enough flights in each category for trees; the hour and the weekday are taken as numbers.
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
    """Flights that arrived, in order of departure, one row each; `day` counts from 0 on 1 January (UTC)."""

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.float64]
    day: NDArray[np.int64]


def load_year() -> Year:
    """Load the flights of 2013 with the features of the shipped spec."""
    spec = find("flights")
    rows = flights_features(spec).frames["features"].drop_nulls(spec.columns.label)
    local = rows["departure"].dt.convert_time_zone(flights.ZONE)
    columns = {c: rows[c].rank("dense") for c in CATEGORIES} | {"hour": local.dt.hour(), "weekday": local.dt.weekday()}
    columns |= {c: rows[c] for c in spec.numeric}
    features = np.column_stack([column.cast(pl.Float32).to_numpy() for column in columns.values()])
    start = int(np.datetime64("2013-01-01", "s").astype(int))
    days = (rows["departure"].dt.epoch("s").to_numpy() - start) // DAY
    return Year(tuple(columns), features, rows["late"].cast(pl.Float64).to_numpy(), days)


def weekly_scores(year: Year, first: int, last: int) -> dict[int, NDArray[np.float64]]:
    """Train a model every seventh day on the labels due by then; return by day its scores of all rows, NaN for earlier ones."""
    import lightgbm

    scores_by_day = {}
    categories = [year.names.index(c) for c in CATEGORIES]
    for day in range(first, last, 7):
        labelled = year.day < day - 1
        data = lightgbm.Dataset(year.features[labelled], year.labels[labelled], categorical_feature=categories)
        model = lightgbm.train(PARAMETERS, data, TREES)
        scores = np.full(len(year.labels), np.nan)
        later = year.day >= day
        scores[later] = np.asarray(model.predict(year.features[later]))
        scores_by_day[day] = scores
    return scores_by_day
