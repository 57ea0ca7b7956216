import json
from pathlib import Path

import pytest

from include.server import segment_writer
from include.server.segment_writer import SegmentWriter


def lines(folder: Path) -> list[bytes]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_what_append_wrote_is_in_the_file_before_any_close(tmp_path: Path) -> None:
    SegmentWriter(tmp_path / "log").append(b"1\n2\n")
    assert lines(tmp_path / "log") == [b"1", b"2"]


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.append(json.dumps("x" * segment_writer.MAX_BYTES).encode() + b"\n")
    writer.append(b"1\n")
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    writer.close()


def test_after_a_disk_error_the_next_append_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    writer = SegmentWriter(folder)
    with pytest.raises(OSError, match="log"):
        writer.append(b"1\n")
    folder.unlink()
    writer.append(b"2\n")
    assert lines(folder) == [b"2"]
    writer.close()
