"""The buffer gives back what was set aside, whether it fitted into memory or not."""

import polars as pl
import pytest

from include.stages.data.spill_buffer import SpillBuffer

SCHEMA = {"n": pl.Int64}


@pytest.mark.parametrize("memory_budget", [1, 1 << 30])
def test_rows_come_back_by_window_in_the_order_they_went_in(memory_budget: int) -> None:
    with SpillBuffer(memory_budget) as buffer:
        for n in range(6):
            buffer.add("landed", f"w{n % 2}", pl.DataFrame({"n": [n, -n]}, schema=SCHEMA))
        assert buffer.windows("landed") == ["w0", "w1"]
        assert buffer.read("landed", "w0", SCHEMA)["n"].to_list() == [0, 0, 2, -2, 4, -4]
        assert buffer.row_count("landed", "w1") == 6
        assert buffer.read("quarantine", "w0", SCHEMA).height == 0
