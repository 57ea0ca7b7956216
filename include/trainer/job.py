"""The job file: everything a training needs to know, and nothing it must ask anyone for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from include.domain.errors import UserMistake

FAMILIES = ("dcn", "logistic", "lightgbm", "blend")
T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """The spec's `model` section, as the trainer reads it."""

    embedding: int
    cross_layers: int
    cross_rank: int  #: 0 is full rank
    hidden: tuple[int, ...]
    dropout: float
    structure: str = "parallel"
    experts: int = 1  #: low-rank experts a cross layer
    numbers: str = "scaled"  #: or embedded
    first_order: float = 0.0  #: spread, in logits, of the categories' own effects beside the layers; 0 is without
    serve: str = "fp32"  #: int8 serves the quantized graph where it is good enough


@dataclass(frozen=True)
class Training:
    """The spec's `training` section, as the trainer reads it."""

    epochs: int
    batch_size: int  #: rows a step, over all processes
    learning_rate: float
    embedding_decay: float
    ema: float
    label_smoothing: float = 0.0
    warm_up: float = 0.02  #: share of the steps in which the rate rises
    precision: str = "auto"  #: bf16, fp16, fp32, or whichever suits the machine
    micro_batch: int = 0  #: rows that one process works on at once, their gradients summed up; 0 is all of its share
    compile: bool = False  #: the tower by torch.compile
    strategy: str = "ddp"  #: of several processes: ddp, fsdp, sharded
    backend: str = "auto"  #: gloo, nccl, or whichever suits the device
    threads: int = 0  #: of arithmetic, in each process; 0 is half the cores, shared by the processes
    device: str = "auto"  #: cuda, cpu, or whichever is there
    checkpoint_steps: int = 500
    checkpoint_minutes: float = 10.0  #: at the latest
    max_auc_loss_int8: float = 0.001  #: the quantized graph is offered when it loses less


@dataclass(frozen=True)
class Tracking:
    """An MLflow server and where in it this run belongs."""

    uri: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Start:
    """The artifact whose weights a training goes on from."""

    manifest: Path
    digest: str  #: SHA-256 of its bytes


@dataclass(frozen=True)
class Job:
    dataset: Path  #: `dataset.json`
    dataset_digest: str  #: SHA-256 of its bytes
    family: str
    model: Model
    training: Training
    seed: int
    spec_digest: str
    out: Path
    tracking: Tracking | None
    serving: Mapping[str, Any] = field(
        default_factory=dict
    )  #: for the model servers; it goes into the manifest as it is
    start: Start | None = None

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides the weights: two jobs with the same one train the same model."""
        own = [self.dataset_digest, self.family, asdict(self.model), asdict(self.training), self.seed]
        parts = [*own, self.start.digest] if self.start else own
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The job file's content; `read` gives the same job back."""
        return {
            "dataset": {"uri": str(self.dataset), "digest": self.dataset_digest}, "family": self.family,
            "model": asdict(self.model), "training": asdict(self.training), "seed": self.seed,
            "spec_digest": self.spec_digest, "out": str(self.out),
            "tracking": asdict(self.tracking) if self.tracking else None,
            "start": {"uri": str(self.start.manifest), "digest": self.start.digest} if self.start else None,
            "serving": dict(self.serving),
        }  # fmt: skip

    @property
    def params(self) -> dict[str, str]:
        """What MLflow shows as the run's parameters."""
        sections = {"model": asdict(self.model), "training": asdict(self.training)}
        flat = {f"{s}.{name}": str(value) for s, section in sections.items() for name, value in section.items()}
        return {"family": self.family, "seed": str(self.seed), **flat}


def read(path: Path) -> Job:
    """Raises UserMistake naming what is missing or cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        job = _job(data)
    except OSError as fault:
        raise UserMistake(f"{path}: cannot read the job: {fault.strerror}") from None
    except KeyError as fault:
        raise UserMistake(f"{path}: the job lacks {fault}") from None
    except (ValueError, TypeError) as fault:
        raise UserMistake(f"{path}: not a job: {fault}") from None
    if job.family not in FAMILIES:
        raise UserMistake(f"{path}: family: {job.family!r} is not one of {', '.join(FAMILIES)}")
    return job


def _job(data: Mapping[str, Any]) -> Job:
    tracking, start = data.get("tracking"), data.get("start")
    return Job(
        dataset=_path(data["dataset"]["uri"]),
        dataset_digest=data["dataset"]["digest"],
        family=data["family"],
        model=_pick(Model, {**data["model"], "hidden": tuple(data["model"]["hidden"])}),
        training=_pick(Training, data["training"]),
        seed=int(data["seed"]),
        spec_digest=data["spec_digest"],
        out=Path(data["out"]),
        tracking=_pick(Tracking, tracking) if tracking else None,
        serving=data.get("serving", {}),
        start=Start(_path(start["uri"]), start["digest"]) if start else None,
    )


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _pick(section: type[T], data: Mapping[str, Any]) -> T:
    return section(**{f.name: data[f.name] for f in fields(section) if f.name in data})  # type: ignore[arg-type]


def derive_seed(*parts: int) -> int:
    """Return one number below 2⁶³ from several, the same on every machine (NumPy keeps SeedSequence's streams stable)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
