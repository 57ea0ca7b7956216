"""One way to write a file: whole or not at all."""

import os
from pathlib import Path

import pytest

from include.artifacts.atomic_write import draft_of, file_facts, move_into_place, write_atomically


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    write_atomically(path, "first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError, match="broken off"), draft_of(path) as draft:
        draft.write_text("ne")
        raise RuntimeError("broken off")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_written_elsewhere_replaces_the_old_one(tmp_path: Path) -> None:
    path, written = tmp_path / "model.onnx", tmp_path / "draft" / "net.onnx"
    write_atomically(path, "old")
    write_atomically(written, "new")
    move_into_place(written, path)
    assert path.read_text() == "new"
    assert not list(written.parent.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["draft", "model.onnx"]


def test_a_reader_meets_the_old_content_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with draft_of(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
        assert draft.parent == path.parent
        assert draft.suffix == path.suffix
        assert draft.name.startswith(".")
    assert path.read_text() == "new"


def test_two_writers_at_once_do_not_share_a_draft(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with draft_of(path) as one, draft_of(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    mask = os.umask(0o027)
    try:
        write_atomically(path, "shared")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_facts_are_size_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    write_atomically(path, b"abc")
    facts = file_facts(path)
    assert facts.bytes == 3
    assert facts.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
