"""The spool gives back what was set aside, whether it fitted into memory or not."""

import polars as pl
import pytest

from include.stages.data.spill_buffer import Spool

SCHEMA = {"n": pl.Int64}


@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_rows_come_back_by_window_in_the_order_they_went_in(budget: int) -> None:
    with Spool(budget) as spool:
        for n in range(6):
            spool.add("landed", f"w{n % 2}", pl.DataFrame({"n": [n, -n]}, schema=SCHEMA))
        assert spool.windows("landed") == ["w0", "w1"]
        assert spool.frame("landed", "w0", SCHEMA)["n"].to_list() == [0, 0, 2, -2, 4, -4]
        assert spool.height("landed", "w1") == 6
        assert spool.frame("quarantine", "w0", SCHEMA).height == 0
