"""The champion's live predictions, joined with the labels that have come due."""

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
    """One version's predictions, each key once, by event time: keys, scores, epoch seconds, raw features (JSON)."""

    keys: pa.Array
    scores: NDArray[np.float64]
    times: NDArray[np.int64]
    features: pa.Array

    def windows(self, grain: Grain) -> dict[str, NDArray[np.intp]]:
        """Label of each event window → the rows in it, oldest first."""
        labels, index = group_by_window(self.times, grain)
        bounds = np.searchsorted(index, np.arange(len(labels) + 1))
        return {label: np.arange(*ends) for label, ends in zip(labels, pairwise(bounds), strict=True)}


def served(signals: Signals, model: str, version: str, before: datetime) -> VersionPredictions:
    return of_version(logged(signals, model, before), version)


def logged(signals: Signals, model: str, before: datetime) -> pa.Table:
    """Predictions of events before the data's clock; one without key or time cannot be joined and is left out."""
    rows = signals.predictions(model)
    past = pc.less(rows["time"], pa.scalar(before, pa.timestamp("us", "UTC")))
    return rows.filter(pc.and_(pc.fill_null(past, False), pc.is_valid(rows["key"])))


def of_version(rows: pa.Table, version: str) -> VersionPredictions:
    """A key that was asked twice counts once, with its first answer."""
    rows = rows.filter(pc.equal(rows["version"], version))
    times = pc.divide(rows["time"].cast(pa.int64()), 1_000_000).to_numpy()
    _, first = np.unique(rows["key"].to_numpy(), return_index=True) if len(rows) else (None, np.zeros(0, np.int64))
    order = first[np.argsort(times[first], kind="stable")]
    kept = rows.take(pa.array(order))
    return VersionPredictions(
        kept["key"].combine_chunks(), kept["score"].to_numpy(), times[order], kept["features"].combine_chunks()
    )


def labelled(
    spec: ModelSpec, tables: Tables, served: VersionPredictions, landed: Sequence[str], as_of: datetime, *, last: int
) -> LabelledScores:
    """The served rows of the `last` landed windows whose label is due by `as_of` and has landed."""
    by_window, due = served.windows(spec.window), as_of - spec.label_delay
    ripe = [w for w in by_window if w in set(landed) and parse_utc(w) < due][-last:]
    rows = np.concatenate([by_window[w] for w in ripe] or [np.zeros(0, np.intp)])
    rows = rows[served.times[rows] <= int(due.timestamp())]
    truth = outcomes(spec, tables, ripe)
    place = pc.index_in(served.keys.take(pa.array(rows)), value_set=truth["key"].combine_chunks())
    known = place.is_valid().to_numpy(zero_copy_only=False)
    found = truth["label"].take(place.drop_null()).to_numpy()
    return labelled_scores(found, served.scores[rows[known]], served.times[rows[known]], spec.window)


def outcomes(spec: ModelSpec, tables: Tables, labels: Sequence[str]) -> pa.Table:
    """`key` and `label` of the landed rows of those windows that have one."""
    columns = spec.columns
    rows = tables.read("landed", [window_of(w, spec.window) for w in labels], columns=[*columns.keys, columns.label])
    rows = rows.filter(pc.is_valid(rows[columns.label]))
    return pa.table({"key": keys(spec, rows), "label": rows[columns.label].cast(pa.float64())})


def keys(spec: ModelSpec, rows: pa.Table) -> pa.ChunkedArray:
    """The key columns joined as the servers log them."""
    return pc.binary_join_element_wise(*[rows[k].cast(pa.string()) for k in spec.columns.keys], "|")
