"""Predictions and labels from the real files of the servers."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.adapters.serving.request_counters import RequestCounters
from include.adapters.serving.segments import LogSegments
from include.adapters.serving.signals import ProductionSignals
from include.adapters.tables.delta import DeltaTables
from include.stages.data.compaction import compact
from tests.watching import SPEC


def production(folder: Path) -> ProductionSignals:
    return ProductionSignals(
        RequestCounters({}, folder), LogSegments(folder), lambda model: DeltaTables(folder / "tables" / model)
    )


def line(number: int, **other: Any) -> str:
    row = {
        "id": f"r{number}",
        "at": 1000.0 + number,
        "version": "3",
        "slot": "stable",
        "mode": "live",
        "key": f"k|{number}",
        "time": "2013-04-01T05:00:00-04:00",
        "features": {"dep": "JFK", "temp": 1.5},
        "score": 0.25,
        "ms": 0.4,
    }
    return json.dumps({**row, **other}) + "\n"


def segment(folder: Path, name: str, *lines: str) -> Path:
    path = folder / "flights" / "stable" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


def test_predictions_come_from_every_segment_in_order_of_their_start(tmp_path: Path) -> None:
    segment(tmp_path, "2000-9.jsonl", line(3, time=None, mode=None))
    segment(tmp_path, "1000-8.jsonl", line(1), line(2, slot="canary"))
    rows = production(tmp_path).predictions("flights").to_pylist()
    assert [r["id"] for r in rows] == ["r1", "r2", "r3"]
    assert rows[0]["time"] == datetime(2013, 4, 1, 9, tzinfo=UTC)
    assert json.loads(rows[0]["features"]) == {"dep": "JFK", "temp": 1.5}
    assert (rows[2]["time"], rows[1]["slot"]) == (None, "canary")


def test_since_is_when_the_prediction_was_made(tmp_path: Path) -> None:
    segment(tmp_path, "1000-8.jsonl", line(1), line(2))
    rows = production(tmp_path).predictions("flights", datetime.fromtimestamp(1002, UTC))
    assert rows["id"].to_pylist() == ["r2"]


def test_a_half_written_line_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment(tmp_path, "1000-8.jsonl", line(1), "\n", line(2), line(3)[:40])
    with caplog.at_level(logging.WARNING):
        rows = production(tmp_path).predictions("flights")
    assert rows["id"].to_pylist() == ["r1", "r2"]
    assert "1000-8.jsonl line 4 is skipped" in caplog.text


def test_no_segment_is_an_empty_table(tmp_path: Path) -> None:
    assert production(tmp_path).predictions("flights").num_rows == 0


def test_labels_that_callers_sent_back_are_no_predictions_and_are_read_apart(tmp_path: Path) -> None:
    segment(tmp_path, "1-1.jsonl", line(1))
    folder = tmp_path / "flights" / "feedback"
    folder.mkdir()
    (folder / "2-1.jsonl").write_text(
        '{"at": 1.0, "id": "r1", "key": null, "label": 1}\n{"at": 2.0, "id": null, "key": "k|2", "label": 0}\n{"at": 3'
    )
    signals = production(tmp_path)
    assert signals.feedback("flights").to_pylist() == [
        {"id": "r1", "key": None, "label": 1.0},
        {"id": None, "key": "k|2", "label": 0.0},
    ]
    assert signals.predictions("flights")["id"].to_pylist() == ["r1"]
    assert signals.feedback("clicks").num_rows == 0


SEGMENT, LATER = "1000000-8.jsonl", "90000000-8.jsonl"
NOW = datetime.fromtimestamp(90_060, UTC)


@pytest.fixture
def flights(tmp_path: Path) -> Any:
    """A spec named flights; one segment finished, one still open, and a label for each."""
    segment(tmp_path, SEGMENT, line(1), line(2), line(3)[:30])
    segment(tmp_path, LATER, line(4, at=90_001.0))
    (tmp_path / "flights" / "feedback").mkdir()
    (tmp_path / "flights" / "feedback" / SEGMENT).write_text('{"at": 1002.5, "id": "r1", "key": null, "label": 1}\n')
    return SPEC.model_copy(update={"name": "flights"})


def run(spec: Any, folder: Path) -> dict[str, int]:
    return compact(spec, LogSegments(folder), DeltaTables(folder / "tables" / "flights"), "run", NOW)


def test_compaction_moves_finished_segments_into_tables_and_readers_see_no_difference(
    tmp_path: Path, flights: Any
) -> None:
    signals = production(tmp_path)
    before, labels = signals.predictions("flights"), signals.feedback("flights")
    assert run(flights, tmp_path) == {"predictions": 2, "feedback": 1}
    assert [p.name for p in sorted((tmp_path / "flights").rglob("*.jsonl"))] == [LATER]
    assert signals.predictions("flights").equals(before)
    assert signals.feedback("flights").equals(labels)
    assert signals.predictions("flights", datetime.fromtimestamp(1002, UTC))["id"].to_pylist() == ["r2", "r4"]
    assert DeltaTables(tmp_path / "tables" / "flights").windows("predictions") == ["1970-01-01"]
    assert run(flights, tmp_path) == {"predictions": 0, "feedback": 0}


def test_a_compaction_broken_off_before_it_removed_the_segment_counts_no_line_twice(
    tmp_path: Path, flights: Any
) -> None:
    path = tmp_path / "flights" / "stable" / SEGMENT
    text = path.read_text()
    run(flights, tmp_path)
    path.write_text(text)
    assert production(tmp_path).predictions("flights")["id"].to_pylist() == ["r1", "r2", "r4"]
    assert run(flights, tmp_path)["predictions"] == 0
    assert production(tmp_path).predictions("flights")["id"].to_pylist() == ["r1", "r2", "r4"]
    assert not path.exists()


def test_the_revision_changes_with_every_line_that_is_logged(tmp_path: Path) -> None:
    signals = production(tmp_path)
    revisions = [signals.revision("flights")]
    path = segment(tmp_path, "1000-8.jsonl", line(1))
    os.utime(path, (1000, 1000))
    revisions.append(signals.revision("flights"))
    os.utime(path, (1001, 1001))
    revisions.append(signals.revision("flights"))
    assert len(set(revisions)) == 3 == len({*revisions, signals.revision("flights")})
