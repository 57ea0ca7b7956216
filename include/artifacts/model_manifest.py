"""`manifest.json`: the result of a training. The trainer writes it last; the model server and the stages read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from include.artifacts.atomic_write import FileFacts
from include.artifacts.dataset_manifest import DatasetColumns, SplitWindows
from include.artifacts.store import Reference

MANIFEST_FORMAT = 1
#: The name of the graph that every training exports, in single precision.
GRAPH = "model.onnx"


@dataclass(frozen=True)
class ServingOptions:
    """What a version tells the model servers: the share of its requests that the prediction log keeps."""

    log_share: float = 1.0


@dataclass(frozen=True)
class Tensor:
    """An input or output of the exported graph in the words of the Open Inference Protocol; -1 in `shape` is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of the exported graph."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class QuantizationLoss:
    """How much AUC the int8 graph loses on the test windows, and whether that is little enough to offer the graph."""

    auc_loss: float
    max_auc_loss: float
    offered: bool


@dataclass(frozen=True)
class ScoreMetrics:
    """How good the scores of one split are; see `include/domain/metrics.py`."""

    auc: float
    logloss: float
    ece: float


@dataclass(frozen=True)
class SplitMetrics:
    """The metrics on the validate windows and on the test windows."""

    validate: ScoreMetrics
    test: ScoreMetrics


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """A trained model: what it was made of, its files, and how good it is.

    `job` is the SHA-256 of everything that decides the weights. `graph` names the ONNX file to serve. `onnx_difference` is
    the largest difference between a score of the graph and one of the trained model. `curves` are the points (step, value)
    of each metric that was followed during training. `seconds` is the time of the training steps alone.
    """

    format: int = MANIFEST_FORMAT
    model: str
    family: str
    run: str
    columns: DatasetColumns
    serving: ServingOptions = field(default_factory=ServingOptions)
    dataset: Reference
    windows: SplitWindows
    seed: int
    spec_digest: str
    job: str
    git_commit: str | None
    mlflow_run_id: str | None
    files: Mapping[str, FileFacts]
    graph: str = GRAPH
    int8: QuantizationLoss | None = None
    onnx_difference: float
    signature: Signature
    metrics: SplitMetrics
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict, repr=False)
    seconds: float
    samples_per_second: int

    def __post_init__(self) -> None:
        if self.format != MANIFEST_FORMAT:
            raise ValueError(f"format {self.format}; this code reads format {MANIFEST_FORMAT}")
