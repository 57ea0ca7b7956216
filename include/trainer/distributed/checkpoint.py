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
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from include.artifacts.atomic_write import move_into_place
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.sharding import full_tensor, is_sharded, local_tensor
from include.trainer.job import Job

MAX_KEPT = 2
SAFETENSORS_TYPES = {torch.float32: "F32", torch.int32: "I32"}


class StoredTensor(Protocol):
    """A tensor in a safetensors file, of which any range along the first dimension can be read."""

    def __getitem__(self, rows: slice) -> Tensor: ...


@dataclass(frozen=True)
class StateTensor:
    """A whole tensor of the training's state, by its name in the file; all processes must write and load it together."""

    name: str
    shape: Sequence[int]
    dtype: torch.dtype
    chunks: Callable[[], Iterator[Tensor]]  #: the tensor, cut along its first dimension
    load: Callable[[StoredTensor], None]


def state_tensor(name: str, tensor: Any) -> StateTensor:
    """Return the state of a tensor that each process holds whole, or that PyTorch shards."""

    def chunks() -> Iterator[Tensor]:
        yield full_tensor(tensor)

    @torch.no_grad()
    def load(stored: StoredTensor) -> None:
        values = stored[:].to(tensor.device)
        if is_sharded(tensor):
            from torch.distributed.tensor import distribute_tensor

            values = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
        local_tensor(tensor).copy_(local_tensor(values))

    return StateTensor(name, tuple(tensor.shape), tensor.dtype, chunks, load)


class Checkpoints:
    """The checkpoints of one job. They are due after so many steps, or minutes, whichever comes first."""

    def __init__(self, job: Job, group: ProcessGroup, state: Sequence[StateTensor]) -> None:
        self.folder, self.job, self.settings = job.checkpoints, job.identity, job.training
        self.group, self.state = group, state
        self.saved_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is to be saved after this step; the main process alone counts the minutes."""
        overdue = time.monotonic() - self.saved_at > 60 * self.settings.checkpoint_minutes
        return step % self.settings.checkpoint_steps == 0 or (self.group.is_main and overdue)

    def save(self, step: int) -> None:
        """Write the state after `step` steps, atomically, and remove all checkpoints but the last two."""
        draft = self.folder / "draft.part"
        digest = self._write_draft(draft, step)
        self.saved_at = time.monotonic()
        if not self.group.is_main:
            return
        move_into_place(draft, self.folder / f"step-{step:09d}-{digest[:32]}.safetensors")
        for old in sorted(self.folder.glob("step-*.safetensors"))[:-MAX_KEPT]:
            old.unlink()

    def restore(self) -> int:
        """Load the newest sound checkpoint of this job and return the steps it has behind it; 0 where there is none."""
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest[:32] != path.stem.rpartition("-")[2]:
                print(f"checkpoint {path.name} is damaged: going on from the one before", flush=True)  # noqa: T201
                continue
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                if metadata["job"] == self.job:
                    for tensor in self.state:
                        tensor.load(file.get_slice(tensor.name))
                    return int(metadata["step"])
        return 0

    def _write_draft(self, draft: Path, step: int) -> str:
        """Write the file and return its digest; the main process writes, the others only lend their parts."""
        digest = hashlib.sha256()
        self.folder.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") if self.group.is_main else Path(os.devnull).open("wb") as file:
            for data in self._file_content(step):
                if self.group.is_main:
                    digest.update(data)
                    file.write(data)
        return digest.hexdigest()

    def _file_content(self, step: int) -> Iterator[bytes | memoryview]:
        """Yield a safetensors file: the header's length, the header, the tensors one after another."""
        header: dict[str, Any] = {"__metadata__": {"step": str(step), "job": self.job}}
        end = 0
        for tensor in self.state:
            start, end = end, end + torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
            dtype = SAFETENSORS_TYPES[tensor.dtype]
            header[tensor.name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for tensor in self.state:
            for chunk in tensor.chunks():
                yield chunk.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def remove(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder, ignore_errors=True)
