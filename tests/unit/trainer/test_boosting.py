"""Which categories the trees split on."""

from pathlib import Path

import lightgbm
import pytest

from include.trainer.process import StopSignal
from include.trainer.run import run
from tests.small_dataset import make_job, write_dataset


@pytest.mark.parametrize(("rows", "used"), [(1000, False), (4000, True)])
def test_trees_split_on_categories_of_which_they_see_enough_rows(tmp_path: Path, rows: int, used: bool) -> None:
    """`shop` has 12 categories and decides much; of 83 rows each the trees would remember the rows."""
    job = make_job(write_dataset(tmp_path / "dataset", train=rows), tmp_path / "out", "lightgbm")
    run(job, StopSignal())
    shop = lightgbm.Booster(model_file=job.out / "model.txt").feature_importance()[0]
    assert (shop > 0) == used
