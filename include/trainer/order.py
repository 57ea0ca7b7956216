"""The order in which training reads its rows, and the seeds of its random numbers: the job's seed decides both."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: Rows read in one piece from disk; so many blocks are shuffled together in memory.
BLOCK = 8192
BLOCKS_TOGETHER = 32


def seed(*parts: int) -> int:
    """One number below 2⁶³ from several, the same on every machine (NumPy's SeedSequence keeps its streams stable)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def order(rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch of an epoch, in an order that seed and epoch alone decide, for any number of processes.

    Blocks are read in random order and the rows of a few of them shuffled together, so that the disk is read in long
    pieces while neighbours in a batch are strangers.
    """
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-rows // BLOCK))
    left = np.empty(0, dtype=np.int64)
    for start in range(0, len(blocks), BLOCKS_TOGETHER):
        together = [np.arange(b * BLOCK, min((b + 1) * BLOCK, rows)) for b in blocks[start : start + BLOCKS_TOGETHER]]
        mixed = np.concatenate([left, random.permutation(np.concatenate(together))])
        whole = len(mixed) // batch_size * batch_size
        yield from mixed[:whole].reshape(-1, batch_size)
        left = mixed[whole:]
    if len(left):
        yield left


def steps(rows: int, batch_size: int) -> int:
    """Batches in an epoch."""
    return -(-rows // batch_size)
