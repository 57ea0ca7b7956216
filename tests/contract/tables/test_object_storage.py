"""Storage on a real S3 server, seen from two machines."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.adapters.tables.object_storage import Mirror
from include.domain.errors import Unavailable
from tests.bucket import bucket


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(tmp_path_factory.mktemp("s3")) as uri:
        yield uri


@pytest.fixture
def machines(uri: str, tmp_path: Path) -> tuple[tuple[Path, Mirror], tuple[Path, Mirror]]:
    """Two homes over one prefix."""
    homes = tmp_path / "one", tmp_path / "two"
    one, two = (Mirror(home, f"{uri}/{tmp_path.name}") for home in homes)
    return (homes[0] / "runs" / "r1", one), (homes[1] / "runs" / "r1", two)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_what_one_machine_keeps_another_has(machines) -> None:
    (here, one), (there, two) = machines
    write(here / "dataset" / "train.ids.npy", "ids"), write(here / "dcn" / "manifest.json", "{}")
    one.push(here)
    two.pull(there)
    assert tree(there) == tree(here)


def test_a_change_goes_both_ways(machines) -> None:
    (here, one), (there, two) = machines
    write(here / "job.json", "one")
    one.push(here)
    two.pull(there)
    write(there / "job.json", "three")
    two.push(there)
    one.pull(here)
    assert tree(here) == {"job.json": "three"}


def test_nothing_is_carried_twice(machines) -> None:
    (here, one), (there, two) = machines
    path = write(here / "ids.npy", "ids")
    one.push(here)
    two.pull(there)
    inode, stamp = (there / "ids.npy").stat().st_ino, path.stat().st_mtime_ns
    two.push(there)
    one.push(here)
    two.pull(there)
    one.pull(here)
    assert ((there / "ids.npy").stat().st_ino, path.stat().st_mtime_ns) == (inode, stamp)


def test_neither_the_same_size_nor_a_slow_clock_hides_a_change(machines) -> None:
    (here, one), (there, two) = machines
    path = write(here / "job.json", "one")
    one.push(here)
    path.write_text("two")
    os.utime(path, (0, 0))
    one.push(here)
    two.pull(there)
    assert tree(there) == {"job.json": "two"}


def test_the_only_writer_removes_what_it_no_longer_has_and_push_does_not(machines) -> None:
    (here, one), (there, two) = machines
    old = write(here / "checkpoints" / "step-1", "1")
    one.push(here)
    old.unlink()
    write(here / "checkpoints" / "step-2", "2")
    one.push(here)
    two.pull(there)
    assert set(tree(there)) == {"checkpoints/step-1", "checkpoints/step-2"}
    one.replace(here)
    (there / "checkpoints" / "step-1").unlink()
    two.pull(there)
    assert set(tree(there)) == {"checkpoints/step-2"}


def test_half_written_files_and_locks_stay_at_home(machines) -> None:
    (here, one), (there, two) = machines
    for name in ("model.onnx.part", "lock", ".job.json.17", "whole"):
        write(here / name, "x")
    one.push(here)
    two.pull(there)
    assert set(tree(there)) == {"whole"}


def test_a_storage_that_is_away_is_worth_another_try(machines, monkeypatch: pytest.MonkeyPatch) -> None:
    (here, one), _ = machines
    write(here / "whole", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="s3://perennial"):
        one.push(here)
