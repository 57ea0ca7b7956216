"""The order in which an epoch reads its rows."""

import numpy as np
import pytest

from include.trainer.data.batches import epoch_batches, steps_per_epoch


@pytest.mark.parametrize("rows", [1, 63, 64, 20_000, 300_000])
def test_an_epoch_holds_every_row_once(rows: int) -> None:
    epoch = list(epoch_batches(rows, 64, seed=1, epoch=0))
    assert len(epoch) == steps_per_epoch(rows, 64)
    assert sorted(np.concatenate(epoch)) == list(range(rows))
    assert all(len(batch) == 64 for batch in epoch[:-1])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return [int(row) for row in next(iter(epoch_batches(1000, 100, seed, epoch)))]

    assert first(1, 0) == first(1, 0)
    assert first(1, 0) != first(1, 1)
    assert first(1, 0) != first(2, 0)
