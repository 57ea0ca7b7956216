"""How processes share a model: the tower and the table, each whole in every process or spread over all of them.

| strategy | tower | table |
|---|---|---|
| `ddp` | whole everywhere (DistributedDataParallel) | whole everywhere |
| `fsdp` | sharded (`fully_shard`) | sharded by row |
| `sharded` | whole everywhere | sharded by row, for tables larger than one device |

Modules and tensors that PyTorch shards are recognised by their methods: to import their classes takes 50 MB and a second,
for which most trainings have no use.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from include.domain.training.job_settings import TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup


def shards_table(settings: TrainingSettings, group: ProcessGroup) -> bool:
    """Return whether each process holds but a part of the embedding table."""
    return group.size > 1 and settings.strategy in ("fsdp", "sharded")


def distribute_tower(tower: nn.Module, settings: TrainingSettings, group: ProcessGroup) -> nn.Module:
    """Return the tower as the processes share it; what it computes stays the same."""
    if group.size == 1:
        return tower
    if settings.strategy != "fsdp":
        return DistributedDataParallel(tower)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(group.device.type, (group.size,))
    for layer in (*getattr(tower, "crosses", ()), tower):
        # Resharded after forward, or a pass without gradients, which measures, would leave whole weights behind.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    return tower


@contextmanager
def accumulating_gradients(tower: Any, last: bool) -> Iterator[None]:
    """Keep gradients in this process until the `last` part of a batch, after which the processes average them."""
    if hasattr(tower, "set_requires_gradient_sync"):
        tower.set_requires_gradient_sync(last)
    unsynchronised = isinstance(tower, DistributedDataParallel) and not last
    with tower.no_sync() if unsynchronised else nullcontext():
        yield


def is_sharded(tensor: Any) -> bool:
    """Return whether PyTorch spreads the tensor over all processes."""
    return hasattr(tensor, "to_local")


def local_tensor(tensor: Any) -> Tensor:
    """Return this process's part of the tensor, which is all of one that is not sharded."""
    local: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return local


def full_tensor(tensor: Any) -> Tensor:
    """Return all of the tensor; all processes must call together."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return full
