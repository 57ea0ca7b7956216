"""The job file: everything that a training needs to know, so that it asks nobody."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from include.artifacts.model_manifest import ServingOptions
from include.domain.errors import UserMistake
from include.domain.training.families import FAMILIES, FamilyName
from include.domain.training.job_settings import NetworkSettings, TrainingSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class TrackingTarget:
    """An MLflow server and the experiment, name and tags that the run has there."""

    uri: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class WarmStart:
    """The champion's artifact, from whose weights a training goes on."""

    manifest: Path
    digest: str  #: SHA-256 of the manifest's bytes


@dataclass(frozen=True)
class Job:
    """One training. `serving` is for the model servers and goes into the result's manifest."""

    dataset: Path  #: `dataset.json`
    dataset_digest: str  #: SHA-256 of its bytes
    family: FamilyName
    model: NetworkSettings
    training: TrainingSettings
    seed: int
    spec_digest: str
    out: Path
    tracking: TrackingTarget | None
    serving: ServingOptions = field(default_factory=ServingOptions)
    start: WarmStart | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def identity(self) -> str:
        """The SHA-256 of all that decides the weights: two jobs with the same one train the same model."""
        own = [self.dataset_digest, self.family, asdict(self.model), asdict(self.training), self.seed]
        parts = [*own, self.start.digest] if self.start else own
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the job file's content; `read` makes an equal job of it."""
        return {
            "dataset": {"uri": str(self.dataset), "digest": self.dataset_digest},
            "family": self.family,
            "model": asdict(self.model),
            "training": asdict(self.training),
            "seed": self.seed,
            "spec_digest": self.spec_digest,
            "out": str(self.out),
            "tracking": asdict(self.tracking) if self.tracking else None,
            "start": {"uri": str(self.start.manifest), "digest": self.start.digest} if self.start else None,
            "serving": asdict(self.serving),
        }

    @property
    def params(self) -> dict[str, str]:
        """Return what MLflow shows as the run's parameters."""
        sections = {"model": asdict(self.model), "training": asdict(self.training)}
        flat = {f"{s}.{name}": str(value) for s, section in sections.items() for name, value in section.items()}
        return {"family": self.family, "seed": str(self.seed), **flat}


def read(path: Path) -> Job:
    """Return the job in that file. Raises UserMistake, in one line that names what is missing or cannot be read."""
    try:
        job = _job(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserMistake(f"{path}: cannot read the job: {error.strerror}") from None
    except KeyError as error:
        raise UserMistake(f"{path}: the job lacks {error}") from None
    except (ValueError, TypeError) as error:
        raise UserMistake(f"{path}: not a job: {error}") from None
    if job.family not in FAMILIES:
        raise UserMistake(f"{path}: family: {job.family!r} is not one of {', '.join(FAMILIES)}")
    return job


def derive_seed(*parts: int) -> int:
    """Return one number below 2⁶³ from several, the same on every machine (NumPy keeps SeedSequence's streams stable)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _job(data: Mapping[str, Any]) -> Job:
    tracking, start = data.get("tracking"), data.get("start")
    return Job(
        dataset=_path(data["dataset"]["uri"]),
        dataset_digest=data["dataset"]["digest"],
        family=data["family"],
        model=_section(NetworkSettings, {**data["model"], "hidden": tuple(data["model"]["hidden"])}),
        training=_section(TrainingSettings, data["training"]),
        seed=int(data["seed"]),
        spec_digest=data["spec_digest"],
        out=Path(data["out"]),
        tracking=_section(TrackingTarget, tracking) if tracking else None,
        serving=_section(ServingOptions, data.get("serving") or {}),
        start=WarmStart(_path(start["uri"]), start["digest"]) if start else None,
    )


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _section(section: type[T], data: Mapping[str, Any]) -> T:
    """Return a section of the job; what the spec has beside it is left out."""
    return section(**{f.name: data[f.name] for f in fields(section) if f.name in data})
