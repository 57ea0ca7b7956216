"""The settings of a network and of its training, as a spec's sections `model` and `training` and a trainer's job hold them.

The bounds are checked where a spec is read.
"""

from dataclasses import dataclass
from typing import Literal

from include.domain.bounds import (
    SECTION,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
)


@dataclass(frozen=True)
class NetworkSettings:
    """The architecture of a DCN-v2. A logistic regression has none of these settings."""

    __pydantic_config__ = SECTION
    embedding: PositiveInt = 8
    cross_layers: NonNegativeInt = 3
    cross_rank: NonNegativeInt = 32  #: 0 is full rank
    hidden: tuple[PositiveInt, ...] = (256, 128)
    dropout: Fraction = 0.3
    structure: Literal["parallel", "stacked"] = "parallel"  #: cross layers beside the hidden ones, or below them
    experts: PositiveInt = 1  #: low-rank experts a cross layer, gated
    numbers: Literal["scaled", "embedded"] = "scaled"  #: as they are, or each as a vector along its field's direction
    first_order: NonNegativeFloat = 0.0  #: usual size of a category's own effect, in logits; 0: none beside
    serve: Literal["fp32", "int8"] = "fp32"  #: int8: the quantized graph, where it loses less than its bound


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained, and how many threads its trees are grown by."""

    __pydantic_config__ = SECTION
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 1024  #: rows a step, over all processes
    learning_rate: PositiveFloat = 2e-3
    embedding_decay: NonNegativeFloat = 100.0  #: of which each step takes its learning rate's share
    ema: Fraction = 0.999
    label_smoothing: Fraction = 0.0
    warm_up: Share = 0.02  #: share of the steps in which the rate rises; more for large batches
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    micro_batch: NonNegativeInt = 0  #: rows a process works on at once, their gradients summed up; 0 is all
    compile: bool = False  #: by torch.compile: half a minute at the start
    strategy: Literal["ddp", "fsdp", "sharded"] = "ddp"  #: of several processes; docs/training.md
    backend: Literal["auto", "gloo", "nccl"] = "auto"  #: between processes; nccl on GPUs
    threads: NonNegativeInt = 0  #: of arithmetic in each process; 0 is half the cores, shared by the processes
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_steps: PositiveInt = 500
    checkpoint_minutes: PositiveFloat = 10.0  #: whichever comes first
    max_auc_loss_int8: Share = 0.001  #: the quantized graph is kept when its AUC loses less
