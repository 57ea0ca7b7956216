"""Threads that share the rows of the table."""

import torch

from include.domain.training.job_settings import TrainingSettings
from include.trainer.distributed.process_group import ProcessGroup
from include.trainer.distributed.row_threads import RowThreads
from include.trainer.optim.embedding_table import MIN_ROWS_PER_THREAD, LocalRows
from include.trainer.optim.lazy_adamw import LazyAdamW, UniqueRows
from tests.unit.trainer.toys import CPU, schedule

torch.set_num_threads(1)


def test_threads_that_share_many_rows_move_them_as_one_does() -> None:
    row_ids = torch.arange(2 * MIN_ROWS_PER_THREAD + 1).repeat(2)
    values, weights = torch.randn(len(row_ids), 4), []
    for threads in (1, 2):
        rows = LazyAdamW(2 * MIN_ROWS_PER_THREAD + 1, 4, schedule(), 1, CPU)
        local = LocalRows(rows, RowThreads(TrainingSettings(threads=threads), ProcessGroup(0, 1, CPU)))
        unique = UniqueRows.of(row_ids)
        assert torch.equal(local.read(unique.row_ids), rows.weight)
        local.step(unique, values)
        weights.append(rows.weight)
    assert len(local.read_last) == 2
    assert torch.equal(*weights)
