"""`evaluation.json`: how good a challenger, the champion and the baselines are on the same test rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from include.artifacts.atomic_write import FileFacts
from include.artifacts.dataset_manifest import SplitWindows
from include.artifacts.store import Reference
from include.domain.evaluation.candidates import CHALLENGER

EVALUATION_FORMAT = 1


@dataclass(frozen=True)
class MetricEstimate:
    """A metric's value with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """The scores of the candidates on the test rows, summed up.

    Candidates are `challenger`, `champion` where there is one, and the baselines by their family. `models` has the manifest
    of each, `metrics` the estimates of each by metric. `champion` is the champion's version. `faults` says of a candidate
    why it could not be scored. `absent` has by column the values that the training windows hold and no test row has.
    `importance` is each feature's share in what moves the challenger's scores. `files` has `scores.npz`, the arrays.
    """

    format: int = EVALUATION_FORMAT
    model: str
    description: str
    run: str
    spec_digest: str
    dataset: Reference
    table_version: int | None
    windows: SplitWindows
    rows: int
    positives: int
    models: Mapping[str, Reference]
    champion: str | None
    metrics: Mapping[str, Mapping[str, MetricEstimate]]
    faults: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, FileFacts]

    @property
    def challenger(self) -> Reference:
        """The challenger's manifest."""
        return self.models[CHALLENGER]
