"""How processes share a model: the tower and the table, each whole in every process or spread over all of them.

| strategy | tower | table |
|---|---|---|
| `ddp` | whole everywhere (DistributedDataParallel) | whole everywhere |
| `fsdp` | sharded (`fully_shard`) | sharded by row |
| `sharded` | whole everywhere | sharded by row, for tables larger than one device |
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from include.trainer.job import Training
from include.trainer.world import World


def shards(plan: Training, world: World) -> bool:
    """Whether this process holds but a part of the table."""
    return world.size > 1 and plan.strategy in ("fsdp", "sharded")


def spread(tower: nn.Module, plan: Training, world: World) -> nn.Module:
    """The tower as the processes share it; what it computes stays the same."""
    if world.size == 1:
        return tower
    if plan.strategy != "fsdp":
        return DistributedDataParallel(tower)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in (*getattr(tower, "crosses", ()), tower):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)  # else what measures leaves its weights behind
    return tower


@contextmanager
def accumulating(tower: nn.Module, last: bool) -> Iterator[None]:
    """Gradients stay in this process until the `last` part of a batch."""
    if isinstance(tower, FSDPModule):
        tower.set_requires_gradient_sync(last)
    alone = isinstance(tower, DistributedDataParallel) and not last
    with tower.no_sync() if alone else nullcontext():  # type: ignore[operator]
        yield


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that several share."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it; all processes must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
