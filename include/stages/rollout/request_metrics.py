"""What single requests of a rollout show: their scores and, where the label has come by now, how good they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.domain.metrics import row_losses
from include.domain.rollout.variants import CUT_POINTS, Moments
from include.domain.windows import group_by_window
from include.ports.tables import Tables
from include.ports.traffic import Signals
from include.spec.model_spec import ModelSpec
from include.stages.serving import live_predictions

NO_VALUES = Moments()
#: The half-open time of a step in which its requests count.
Interval = tuple[datetime, datetime]


@dataclass(frozen=True)
class RequestMetrics:
    """Scores and labels of one slot's requests during a step; the fields are those of `VariantTraffic`."""

    logloss: Moments = NO_VALUES
    label: Moments = NO_VALUES
    score: Moments = NO_VALUES
    bias: Moments = NO_VALUES
    above: tuple[int, ...] = (0,) * len(CUT_POINTS)

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Self:
        """Return the metrics of requests by their scores `[n]` and labels `[n]`, NaN where the label has not come yet."""
        labelled = ~np.isnan(labels)
        truth, predicted = labels[labelled], scores[labelled]
        return cls(
            logloss=Moments.of(row_losses(truth, predicted)),
            label=Moments.of(truth),
            score=Moments.of(scores),
            bias=Moments.of(predicted - truth),
            above=tuple(int((scores > cut).sum()) for cut in CUT_POINTS),
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the metrics that `dataclasses.asdict` gave."""
        moments = {name: Moments(**value) for name, value in data.items() if name != "above"}
        return cls(**moments, above=tuple(data["above"]))


def read(
    spec: ModelSpec, signals: Signals, tables: Tables, intervals: Sequence[Interval]
) -> list[dict[str, RequestMetrics]]:
    """Return the metrics of each interval by slot, from the prediction log and the labels that came back or landed.

    All intervals are read anew each time, because a label may come long after its request.
    """
    rows = signals.predictions(spec.name, intervals[0][0])
    times, scores, labels = rows["at"].to_numpy(), rows["score"].to_numpy(), _labels(spec, signals, tables, rows)
    slots = np.asarray(rows["slot"].to_pylist(), dtype=np.str_)
    by_interval = []
    for start, end in intervals:
        inside = (times >= start.timestamp()) & (times < end.timestamp())
        masks = {slot: inside & (slots == slot) for slot in ("stable", "canary")}
        by_interval.append({slot: RequestMetrics.of(scores[mask], labels[mask]) for slot, mask in masks.items()})
    return by_interval


def _labels(spec: ModelSpec, signals: Signals, tables: Tables, rows: pa.Table) -> NDArray[np.float64]:
    """Return the label of each prediction `[n]`, NaN where it has not come yet; one by the request's id comes first."""
    feedback = signals.feedback(spec.name)
    labels = _label_of(rows["id"], feedback["id"], feedback["label"])
    sources = [feedback]
    if windows := _landed_windows(spec, tables, rows):
        sources.append(live_predictions.landed_labels(spec, tables, windows))
    for source in sources:
        labels = np.where(np.isnan(labels), _label_of(rows["key"], source["key"], source["label"]), labels)
    return labels


def _label_of(wanted: pa.ChunkedArray, names: pa.ChunkedArray, labels: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return the label beside each wanted name, NaN where `names` lacks it."""
    place = pc.index_in(wanted, value_set=names.combine_chunks(), skip_nulls=True)
    return np.asarray(labels.cast(pa.float64()).take(place).to_numpy(), dtype=np.float64)


def _landed_windows(spec: ModelSpec, tables: Tables, rows: pa.Table) -> list[str]:
    """Return the labels of the landed windows in which the predicted events lie."""
    seconds = rows["time"].drop_null().cast(pa.int64()).to_numpy() // 1_000_000
    labels, _ = group_by_window(seconds, spec.window)
    landed = set(tables.windows("landed"))
    return [label for label in labels if label in landed]
