"""Live predictions of a version, joined with the labels that have come due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.domain.monitoring.performance import LabelledScores
from include.domain.windows import Grain, group_by_window, parse_utc, window_of
from include.ports.tables import Tables
from include.ports.traffic import Signals
from include.spec.model_spec import ModelSpec
from include.stages.release.champion import labelled_scores


@dataclass(frozen=True)
class VersionPredictions:
    """The predictions of one version, each key once, in the order of the events' times.

    All are `[n]`: `keys`, `scores`, `times` in epoch seconds, and the raw `features` as JSON.
    """

    keys: pa.Array
    scores: NDArray[np.float64]
    times: NDArray[np.int64]
    features: pa.Array

    def windows(self, grain: Grain) -> dict[str, NDArray[np.intp]]:
        """Return the rows of each event window by its label, oldest first."""
        labels, index = group_by_window(self.times, grain)
        bounds = np.searchsorted(index, np.arange(len(labels) + 1))
        return {label: np.arange(*ends) for label, ends in zip(labels, pairwise(bounds), strict=True)}


def predictions_of(signals: Signals, model: str, version: str, before: datetime) -> VersionPredictions:
    """Return the version's predictions of events before that time of the data's clock."""
    return of_version(logged_before(signals, model, before), version)


def logged_before(signals: Signals, model: str, before: datetime) -> pa.Table:
    """Return the logged predictions of events before that time of the data's clock.

    One without key or time cannot be joined with its label and is left out.
    """
    rows = signals.predictions(model)
    past = pc.less(rows["time"], pa.scalar(before, pa.timestamp("us", "UTC")))
    return rows.filter(pc.and_(pc.fill_null(past, False), pc.is_valid(rows["key"])))


def of_version(rows: pa.Table, version: str) -> VersionPredictions:
    """Return the version's predictions among logged rows; a key that was asked for twice counts once, with its first answer."""
    rows = rows.filter(pc.equal(rows["version"], version))
    times = pc.divide(rows["time"].cast(pa.int64()), 1_000_000).to_numpy()
    _, first = np.unique(rows["key"].to_numpy(), return_index=True) if len(rows) else (None, np.zeros(0, np.int64))
    order = first[np.argsort(times[first], kind="stable")]
    ordered = rows.take(pa.array(order))
    return VersionPredictions(
        ordered["key"].combine_chunks(),
        ordered["score"].to_numpy(),
        times[order],
        ordered["features"].combine_chunks(),
    )


def labelled(
    spec: ModelSpec,
    tables: Tables,
    predictions: VersionPredictions,
    landed: Sequence[str],
    as_of: datetime,
    *,
    last: int,
) -> LabelledScores:
    """Return the predictions of the `last` landed windows whose label is due by `as_of` and has landed."""
    by_window, due = predictions.windows(spec.window), as_of - spec.label_delay
    due_windows = [w for w in by_window if w in set(landed) and parse_utc(w) < due][-last:]
    rows = np.concatenate([by_window[w] for w in due_windows] or [np.zeros(0, np.intp)])
    rows = rows[predictions.times[rows] <= int(due.timestamp())]
    truth = landed_labels(spec, tables, due_windows)
    place = pc.index_in(predictions.keys.take(pa.array(rows)), value_set=truth["key"].combine_chunks())
    rows = rows[place.is_valid().to_numpy(zero_copy_only=False)]
    labels = truth["label"].take(place.drop_null()).to_numpy()
    return labelled_scores(labels, predictions.scores[rows], predictions.times[rows], spec.window)


def landed_labels(spec: ModelSpec, tables: Tables, windows: Sequence[str]) -> pa.Table:
    """Return `key` and `label` of those windows' landed rows that have a label."""
    columns = spec.columns
    rows = tables.read("landed", [window_of(w, spec.window) for w in windows], columns=[*columns.keys, columns.label])
    rows = rows.filter(pc.is_valid(rows[columns.label]))
    return pa.table({"key": joined_keys(spec, rows), "label": rows[columns.label].cast(pa.float64())})


def joined_keys(spec: ModelSpec, rows: pa.Table) -> pa.ChunkedArray:
    """Return the key columns of each row joined by `|`, as the servers log them."""
    return pc.binary_join_element_wise(*[rows[k].cast(pa.string()) for k in spec.columns.keys], "|")
