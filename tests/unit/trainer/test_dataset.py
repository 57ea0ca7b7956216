"""Reading the dataset: what is refused, and the order of rows."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from include.domain.errors import Corrupt, UserMistake
from include.trainer.data import dataset
from tests.small_dataset import write_dataset


def load(path: Path) -> dataset.Dataset:
    return dataset.load(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_changed_file_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    labels = np.load(tmp_path / "train.labels.npy")
    np.save(tmp_path / "train.labels.npy", 1 - labels)
    with pytest.raises(Corrupt, match=r"train\.labels\.npy: its SHA-256"):
        load(path)


def test_no_rows_is_one_line_that_names_the_windows(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="train: no rows in 2013-01-01 to 2013-01-20"):
        load(write_dataset(tmp_path, train=0))


def test_one_class_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"train: all 1000 labels of .* are 0; learning needs both"):
        load(write_dataset(tmp_path, classes=1))


def test_one_class_in_the_windows_to_measure_on_is_one_line_too(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, one_class_in="validate")
    with pytest.raises(UserMistake, match=r"validate: all 300 labels of 2013-01-21 .* are 0; measuring needs both"):
        load(path)
