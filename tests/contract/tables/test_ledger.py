"""The ledger keeps every decision, whoever writes and whoever dies."""

import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from include.adapters.tables.ledger import FileLedger

WRITER = """
import sys
from pathlib import Path
from include.adapters.tables.ledger import FileLedger
ledger = FileLedger(Path(sys.argv[1]))
for i in range(100):
    ledger.append("flights", "decision", writer=sys.argv[2], number=i, padding="x" * 5000)
"""


def test_rows_come_back_in_order_by_kind_and_model(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    ledger.append("flights", "decision", start=True, as_of=datetime(2013, 7, 1, tzinfo=UTC), value=np.float32(0.5))
    ledger.append("flights", "cleared", request="r")
    ledger.append("clicks", "decision", start=False)
    rows = ledger.read("flights")
    assert [r["kind"] for r in rows] == ["decision", "cleared"]
    assert rows[0]["as_of"] == "2013-07-01T00:00:00Z"
    assert rows[0]["value"] == 0.5
    assert datetime.fromisoformat(rows[0]["at"]).tzinfo is not None
    assert [r["request"] for r in ledger.read("flights", "cleared")] == ["r"]


def test_a_model_without_decisions_has_none(tmp_path: Path) -> None:
    assert FileLedger(tmp_path / "none").read("flights") == []


def test_several_processes_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    rows = FileLedger(tmp_path).read("flights")
    for name in "abc":
        assert [r["number"] for r in rows if r["writer"] == name] == list(range(100))


def test_a_half_written_line_is_skipped_with_a_note_and_harms_no_later_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = FileLedger(tmp_path)
    ledger.append("flights", "decision", number=1)
    with (tmp_path / "flights" / "decision.jsonl").open("a") as file:
        file.write('{"kind": "decision", "num')
    with caplog.at_level(logging.WARNING):
        assert [r["number"] for r in ledger.read("flights")] == [1]
    assert "line 2 is half-written" in caplog.text
    ledger.append("flights", "decision", number=2)
    assert [r["number"] for r in ledger.read("flights")] == [1, 2]
