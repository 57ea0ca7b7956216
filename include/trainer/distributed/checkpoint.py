"""Checkpoints: everything the next step depends on, in one file whose name says the step and the digest of its bytes.

The random numbers of a step depend on seed, step and rank alone and the order of rows on seed and epoch, so the step's
number stands for both. The file holds whole tensors, whatever number of processes share them, so that another number can
go on from it. It is written and read piece by piece. Safetensors holds no code, so nothing is unpickled.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from include.trainer.distributed.process_group import World
from include.trainer.distributed.sharding import local, sharded, whole
from include.trainer.job import Job

KEEP = 2
TYPES = {torch.float32: "F32", torch.int32: "I32"}


@dataclass(frozen=True)
class Part:
    """A tensor of the state. `pieces` gives it whole, cut along its first dimension; all processes must ask together."""

    name: str
    shape: Sequence[int]
    dtype: torch.dtype
    pieces: Callable[[], Iterator[Tensor]]
    load: Callable[[Any], None]  #: from a slice of the file, of which any range can be read


def of_tensor(name: str, tensor: Any) -> Part:
    """A tensor that each process holds whole, or that PyTorch shards."""

    def pieces() -> Iterator[Tensor]:
        yield whole(tensor)

    @torch.no_grad()
    def load(stored: Any) -> None:
        given = stored[:].to(tensor.device)
        if sharded(tensor):
            from torch.distributed.tensor import distribute_tensor

            given = distribute_tensor(given, tensor.device_mesh, tensor.placements, src_data_rank=None)
        local(tensor).copy_(local(given))

    return Part(name, tuple(tensor.shape), tensor.dtype, pieces, load)


class Checkpoints:
    """Those of one job. They are due after so many steps, or minutes, whichever comes first."""

    def __init__(self, job: Job, world: World, parts: Sequence[Part]) -> None:
        self.folder, self.job, self.plan = job.checkpoints, job.identity, job.training
        self.world, self.parts = world, parts
        self.saved = time.monotonic()

    def due(self, step: int) -> bool:
        late = time.monotonic() - self.saved > 60 * self.plan.checkpoint_minutes
        return step % self.plan.checkpoint_steps == 0 or (self.world.first and late)

    def write(self, step: int) -> None:
        """Save the state after `step` steps, atomically, and forget all but the last two."""
        draft = self.folder / "draft.part"
        digest = self._draft(draft, step)
        self.saved = time.monotonic()
        if not self.world.first:
            return
        draft.replace(self.folder / f"step-{step:09d}-{digest[:32]}.safetensors")
        for old in sorted(self.folder.glob("step-*.safetensors"))[:-KEEP]:
            old.unlink()

    def restore(self) -> int:
        """Load the newest sound checkpoint of this job; the steps it has behind it, 0 where there is none."""
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest[:32] != path.stem.rpartition("-")[2]:
                print(f"checkpoint {path.name} is damaged: going on from the one before", flush=True)  # noqa: T201
                continue
            with safe_open(path, framework="pt") as file:
                facts = file.metadata()
                if facts["job"] == self.job:
                    for part in self.parts:
                        part.load(file.get_slice(part.name))
                    return int(facts["step"])
        return 0

    def _draft(self, draft: Path, step: int) -> str:
        """The file, whole and on the disk; its digest. The first process writes, all others only lend their parts."""
        digest = hashlib.sha256()
        self.folder.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") if self.world.first else open(os.devnull, "wb") as file:  # noqa: PTH123
            for data in self._bytes(step):
                if self.world.first:
                    digest.update(data)
                    file.write(data)
            file.flush()
            if self.world.first:
                os.fsync(file.fileno())
        return digest.hexdigest()

    def _bytes(self, step: int) -> Iterator[bytes | memoryview]:
        """The safetensors format: the header's length, the header, the tensors one after another."""
        header: dict[str, Any] = {"__metadata__": {"step": str(step), "job": self.job}}
        end = 0
        for part in self.parts:
            start, end = end, end + torch.Size(part.shape).numel() * part.dtype.itemsize
            header[part.name] = {"dtype": TYPES[part.dtype], "shape": part.shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for part in self.parts:
            for piece in part.pieces():
                yield piece.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def forget(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder, ignore_errors=True)
