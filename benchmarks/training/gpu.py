"""Measure the trainer's steps on one GPU beside a plain eager PyTorch loop: 39 fields, width 16, three cross layers, bf16.

`python -m benchmarks gpu [--rows 8000000 --batch 65536 --table 1000000]` needs a CUDA device, torch, numpy, httpx and
safetensors, and no data: rows are drawn on the spot. The last line is one JSON object with the figures, the bounds and
`holds`. `--device cpu` tries the script out where there is no GPU, with figures that mean nothing.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from include.domain.training.job_settings import NetworkSettings, TrainingSettings
from include.trainer import train
from include.trainer.data.dataset import Dataset, Fields, Split
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.job import Job
from include.trainer.process import StopSignal
from include.trainer.tracking.tracker import SilentTracker

CATEGORIES, NUMBERS, WIDTH, CROSSES, HIDDEN = 26, 13, 16, 3, (256, 128)
BOUNDS = {"samples_per_second": 20e6, "times_plain": 5.0}


class PlainNetwork(nn.Module):
    """The same model written plainly: one embedding table, full-rank cross layers beside an MLP."""

    def __init__(self, table: int) -> None:
        super().__init__()
        width = CATEGORIES * WIDTH + NUMBERS
        self.table = nn.Embedding(table, WIDTH)
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(CROSSES))
        self.deep = nn.Sequential(nn.Linear(width, HIDDEN[0]), nn.ReLU(), nn.Linear(*HIDDEN), nn.ReLU())
        self.head = nn.Linear(width + HIDDEN[1], 1)

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        x0 = torch.cat([self.table(ids).flatten(1), numbers], dim=1)
        x = x0
        for cross in self.crosses:
            x = x0 * cross(x) + x
        logits: Tensor = self.head(torch.cat([x, self.deep(x0)], dim=1)).squeeze(1)
        return logits


def draw_dataset(rows: int, table: int) -> Dataset:
    """Draw rows whose categories follow Zipf's law, as those of click logs do."""
    random, size = np.random.default_rng(17), table // CATEGORIES
    fields = tuple(f"c{n}" for n in range(CATEGORIES)), tuple(f"i{n}" for n in range(NUMBERS))
    knots = {f: tuple(np.linspace(-2, 2, 65)) for f in fields[1]}

    def split(count: int) -> Split:
        ids = np.minimum(random.zipf(1.2, (count, CATEGORIES)), size - 1).astype(np.int32)
        numbers = random.standard_normal((count, NUMBERS), dtype=np.float32)
        labels = (random.random(count) < 0.25).astype(np.float32)
        return Split(ids, numbers, labels, np.arange(count, dtype=np.int64))

    return Dataset({}, Path(), Fields(*fields, [size] * CATEGORIES, knots), split(rows), split(8192), split(8192))


def trainer_speed(data: Dataset, batch: int, device: torch.device, folder: Path) -> float:
    """Return the samples/s of the trainer's own loop, after one training that warms the device up."""
    network = NetworkSettings(WIDTH, CROSSES, 0, HIDDEN, 0.0)
    settings = TrainingSettings(
        1, batch, 2e-3, 100.0, 0.999, precision="bf16", device=device.type, checkpoint_steps=10**9
    )
    speed = 0.0
    for n in range(2):
        job = Job(Path(), "", "dcn", network, settings, 17, "", folder / str(n), None)
        group, tracker = ProcessGroup(0, 1, device), SilentTracker()
        speed = train.train(job, data, group, tracker, StopSignal())[1].samples_per_second
    return speed


def plain_speed(data: Dataset, batch: int, device: torch.device, table: int, steps: int = 50) -> float:
    """Return the samples/s of an eager loop: batches copied from the host, autocast, dense Adam."""
    net = PlainNetwork(table).to(device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    offsets = torch.arange(CATEGORIES, device=device) * (table // CATEGORIES)
    order = np.random.default_rng(1).permutation(len(data.train))

    def step(n: int) -> None:
        rows = order[np.arange(n * batch, (n + 1) * batch) % len(order)]
        ids = torch.from_numpy(data.train.ids[rows].astype(np.int64)).to(device) + offsets
        numbers, labels = (torch.from_numpy(part[rows]).to(device) for part in (data.train.numbers, data.train.labels))
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(ids, numbers)
        nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return batch / seconds_of(step, device, steps)


def seconds_of(work: Callable[[int], None], device: torch.device, times: int, warm: int = 5) -> float:
    """Return the seconds of one call of `work` on average over `times` calls, after `warm` calls that do not count."""
    for n in range(warm):
        work(n)
    _wait(device)
    started_at = time.perf_counter()
    for n in range(times):
        work(n)
    _wait(device)
    return (time.perf_counter() - started_at) / times


def device_peaks(device: torch.device, size: int) -> tuple[float, float]:
    """Return what the device reaches in this run: FLOP/s of bf16 matrix products, and bytes/s of copies (read and written)."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.zeros(size * size * 4, device=device)
    target = torch.empty_like(source)

    def multiply(_: int) -> None:
        torch.mm(a, b)

    def copy(_: int) -> None:
        target.copy_(source)

    return 2 * size**3 / seconds_of(multiply, device, 20), 2 * source.nbytes / seconds_of(copy, device, 20)


def flops_per_sample() -> int:
    """Return the floating-point operations of a sample's matrix products, forward and backward."""
    width = CATEGORIES * WIDTH + NUMBERS
    weights = CROSSES * width**2 + width * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + width + HIDDEN[1]
    return 6 * weights


def bytes_per_sample() -> int:
    """Return the bytes that a sample moves at the least.

    These are its row; each embedding read, and its weight, moments and average read and written once; each layer's bf16
    activations written forward and read backward, and their gradients written and read.
    """
    width = CATEGORIES * WIDTH + NUMBERS
    row, vectors = 4 * (CATEGORIES + NUMBERS + 1), 4 * CATEGORIES * WIDTH
    return row + vectors * (1 + 2 * 4) + 2 * 4 * ((CROSSES + 1) * width + sum(HIDDEN))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    """Measure both loops, print the figures, and return 0 if all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--table", type=int, default=1_000_000)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this machine has no CUDA device; --device cpu only tries the script out")
    device = torch.device(options.device, 0 if options.device == "cuda" else None)
    data = draw_dataset(options.rows, options.table)
    with tempfile.TemporaryDirectory() as folder:
        speed = trainer_speed(data, options.batch, device, Path(folder))
    other = plain_speed(data, options.batch, device, options.table)
    matrix_flops, copied_bytes = device_peaks(device, 8192 if options.device == "cuda" else 512)
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "samples_per_second": speed,
        "plain_samples_per_second": other,
        "times_plain": speed / other,
        "share_of_bf16_peak": speed * flops_per_sample() / matrix_flops,
        "share_of_memory_bandwidth": speed * bytes_per_sample() / copied_bytes,
    }
    checks = {name: figures[name] >= bound for name, bound in BOUNDS.items()}
    summary = {"figures": figures, "bounds": BOUNDS, "checks": checks, "holds": all(checks.values())}
    print(json.dumps({"bench": "train_gpu", **summary}))
    return 0 if all(checks.values()) else 1
