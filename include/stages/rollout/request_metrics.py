"""What single requests of a rollout said: their scores and, where the label is known by now, how good they were."""

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

NOTHING = Moments()


@dataclass(frozen=True)
class Values:
    """Of one slot over a span, as `canary.Arm` takes them."""

    logloss: Moments = NOTHING
    label: Moments = NOTHING
    score: Moments = NOTHING
    bias: Moments = NOTHING
    above: tuple[int, ...] = (0,) * len(CUT_POINTS)

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Self:
        """`labels` `[n]` are NaN where they are not known."""
        known = ~np.isnan(labels)
        truth, said = labels[known], scores[known]
        loss, label, score, bias = map(Moments.of, (row_losses(truth, said), truth, scores, said - truth))
        return cls(loss, label, score, bias, tuple(int((scores > cut).sum()) for cut in CUT_POINTS))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        moments = {name: Moments(**kept) for name, kept in data.items() if name != "above"}
        return cls(**moments, above=tuple(data["above"]))


def read(
    spec: ModelSpec, signals: Signals, tables: Tables, spans: Sequence[tuple[datetime, datetime]]
) -> list[dict[str, Values]]:
    """Each span's values by slot, from the prediction log, joined with the labels that came by feedback or landed.

    All spans are read anew each time, because a label may come long after its request.
    """
    rows = signals.predictions(spec.name, spans[0][0])
    at, scores, labels = rows["at"].to_numpy(), rows["score"].to_numpy(), _labels(spec, signals, tables, rows)
    slots = np.asarray(rows["slot"].to_pylist(), dtype=np.str_)
    found = []
    for start, end in spans:
        inside = (at >= start.timestamp()) & (at < end.timestamp())
        arms = {slot: inside & (slots == slot) for slot in ("stable", "canary")}
        found.append({slot: Values.of(scores[mine], labels[mine]) for slot, mine in arms.items()})
    return found


def _labels(spec: ModelSpec, signals: Signals, tables: Tables, rows: pa.Table) -> NDArray[np.float64]:
    """Of each prediction `[n]`, NaN where it is not known yet."""
    fed = signals.feedback(spec.name)
    labels = _found(rows["id"], fed["id"], fed["label"])
    sources = [fed]
    if windows := _windows(spec, tables, rows):
        sources.append(live_predictions.outcomes(spec, tables, windows))
    for source in sources:
        labels = np.where(np.isnan(labels), _found(rows["key"], source["key"], source["label"]), labels)
    return labels


def _found(wanted: pa.ChunkedArray, names: pa.ChunkedArray, labels: pa.ChunkedArray) -> NDArray[np.float64]:
    place = pc.index_in(wanted, value_set=names.combine_chunks(), skip_nulls=True)
    return np.asarray(labels.cast(pa.float64()).take(place).to_numpy(), dtype=np.float64)


def _windows(spec: ModelSpec, tables: Tables, rows: pa.Table) -> list[str]:
    """The landed windows in which the predicted events lie."""
    seconds = rows["time"].drop_null().cast(pa.int64()).to_numpy() // 1_000_000
    labels, _ = group_by_window(seconds, spec.window)
    landed = set(tables.windows("landed"))
    return [label for label in labels if label in landed]
