"""How processes share a model: the tower and the table, each whole in every process or spread over all of them.

| strategy | tower | table |
|---|---|---|
| `ddp` | whole everywhere (DistributedDataParallel) | whole everywhere |
| `fsdp` | sharded (`fully_shard`) | sharded by row |
| `sharded` | whole everywhere | sharded by row, for tables larger than one device |

Modules and tensors that PyTorch shards are known by their methods: to import their classes takes 50 MB and a second, for
which most trainings have no use.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from include.trainer.distributed.process_group import World
from include.trainer.job import Training


def shards(plan: Training, world: World) -> bool:
    """Whether this process holds but a part of the table."""
    return world.size > 1 and plan.strategy in ("fsdp", "sharded")


def spread(tower: nn.Module, plan: Training, world: World) -> nn.Module:
    """The tower as the processes share it; what it computes stays the same."""
    if world.size == 1:
        return tower
    if plan.strategy != "fsdp":
        return DistributedDataParallel(tower)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in (*getattr(tower, "crosses", ()), tower):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)  # else what measures leaves its weights behind
    return tower


@contextmanager
def accumulating(tower: Any, last: bool) -> Iterator[None]:
    """Gradients stay in this process until the `last` part of a batch."""
    if hasattr(tower, "set_requires_gradient_sync"):
        tower.set_requires_gradient_sync(last)
    alone = isinstance(tower, DistributedDataParallel) and not last
    with tower.no_sync() if alone else nullcontext():
        yield


def sharded(tensor: Any) -> bool:
    """By PyTorch, over all processes."""
    return hasattr(tensor, "to_local")


def local(tensor: Any) -> Tensor:
    """This process's part of a tensor that several share."""
    own: Tensor = tensor.to_local() if sharded(tensor) else tensor
    return own


def whole(tensor: Any) -> Tensor:
    """All of it; all processes must ask together."""
    everything: Tensor = tensor.full_tensor() if sharded(tensor) else tensor
    return everything
