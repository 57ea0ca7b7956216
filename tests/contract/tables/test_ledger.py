"""The ledger keeps every event, whoever writes and whoever dies, and reads what earlier releases wrote.

`ledger/` beside this file was written by the release before events had classes; the first row of some files lacks the keys
that still older releases did not write.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.adapters.tables.ledger import FileLedger
from include.domain.events import (
    EVENT_TYPES,
    ActionRequested,
    CauseRechecked,
    RequestClaimed,
    RetrainingDecided,
    StepAnalysed,
    TrainingFinished,
    VersionApproved,
)
from include.domain.monitoring.signal import Signal, SignalState
from include.domain.rollout.variants import RequestCounts
from include.domain.verdict import Check, Outcome, Verdict
from include.domain.windows import parse_utc
from include.ports.ledger import Ledger
from include.reports import rollout_page, summary
from tests.fakes import FakeLedger

EARLIER = Path(__file__).with_name("ledger")
#: The keys that the oldest row of a file lacks.
LACKING = {"word": {"run"}, "decision": {"evidence"}, "cleared": {"window"}}
WRITER = """
import sys
from pathlib import Path
from include.adapters.tables.ledger import FileLedger
from include.domain.events import RequestClaimed
ledger = FileLedger(Path(sys.argv[1]))
for i in range(100):
    ledger.append("flights", RequestClaimed(request=f"{i} {'x' * 5000}", run=sys.argv[2]))
"""


@pytest.fixture(params=[FileLedger, lambda folder: FakeLedger()], ids=["files", "fake"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    make: Callable[[Path], Ledger] = request.param
    return make(tmp_path / "ledger")


def with_parsed_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with times instead of texts: `Z` and `+00:00` are the same."""
    times: dict[str, Any] = {name: parse_utc(row[name]) for name in ("at", "as_of") if row.get(name)}
    return row | times


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_come_back_in_order_by_class_and_model(ledger: Ledger) -> None:
    training = TrainingFinished(run="r", as_of=datetime(2013, 7, 1, tzinfo=UTC), hours=float(np.float32(0.5)))
    claim, approval = RequestClaimed(request="age", run="r"), VersionApproved(version="1", by="ada")
    for event in (training, claim):
        ledger.append("flights", event)
    ledger.append("clicks", approval)
    assert ledger.read_all("flights") == [training, claim]
    assert ledger.read("flights", TrainingFinished) == [training]
    assert ledger.read("clicks", VersionApproved) == [approval]


def test_a_model_without_events_has_none(ledger: Ledger) -> None:
    assert ledger.read_all("flights") == ledger.read("flights", VersionApproved) == []


def decision(signal: Signal) -> RetrainingDecided:
    return RetrainingDecided(
        run="w",
        as_of=None,
        window="",
        champion=None,
        start=False,
        sentence="no",
        cause=None,
        request=None,
        signals=(signal,),
    )


def test_what_is_nested_in_an_event_comes_back_typed(ledger: Ledger) -> None:
    check = Check("error_rate", Outcome.FAIL, "worse", 0.2, 0.1, (0.1, 0.3))
    analysed = StepAnalysed(
        run="r",
        version="2",
        step="10 %",
        number=3,
        decision="roll back",
        sentence="worse",
        verdict=Verdict("canary", (check,)),
        counts={"canary": RequestCounts(10, 1, 0)},
    )
    signal = Signal("auc", SignalState.WARN, "lower", 0.7, 0.75, (0.6, 0.8), ("2013-07-01",))
    decided = decision(signal)
    for event in (analysed, decided):
        ledger.append("flights", event)
    assert ledger.read_all("flights") == [analysed, decided]


def test_an_interval_without_an_end_comes_back_with_nan_there(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    signal = Signal("auc", SignalState.WARN, "lower", None, None, (0.6, float("inf")))
    event = decision(signal)
    ledger.append("flights", event)
    interval = ledger.read("flights", RetrainingDecided)[0].signals[0].interval
    assert interval is not None
    assert interval[0] == 0.6
    assert isnan(interval[1])


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_rows_of_earlier_releases_are_read_and_written_with_the_same_keys_in_the_same_order(
    kind: str, tmp_path: Path
) -> None:
    events = FileLedger(EARLIER).read("flights", EVENT_TYPES[kind])
    for event in events:
        FileLedger(tmp_path).append("flights", event)
    before, after = (
        sorted(rows(folder / "flights" / f"{kind}.jsonl"), key=lambda row: parse_utc(row["at"]))
        for folder in (EARLIER, tmp_path)
    )
    assert before
    assert [list(row) for row in after] == [list(row) for row in before]
    assert [with_parsed_times(row) for row in after] == [with_parsed_times(row) for row in before]


def test_rows_that_lack_what_later_releases_wrote_are_read_with_defaults() -> None:
    ledger = FileLedger(EARLIER)
    for kind, keys in LACKING.items():
        assert not keys & set(rows(EARLIER / "flights" / f"{kind}.jsonl")[0])
    assert ledger.read("flights", ActionRequested)[0].run == ""
    assert ledger.read("flights", RetrainingDecided)[0].evidence == ""
    assert ledger.read("flights", CauseRechecked)[0].window == ""


def test_pages_are_made_of_rows_of_earlier_releases(tmp_path: Path) -> None:
    ledger = FileLedger(EARLIER)
    assert "promoted (version 2): passed every step" in rollout_page.page("flights", "run-1", ledger)
    versions, rollouts, decisions = summary.tables("flights", ledger, tmp_path)
    assert (len(versions.rows), len(rollouts.rows), len(decisions.rows)) == (0, 4, 4)
    assert summary.champion_at("flights", ledger, datetime(2100, 1, 1, tzinfo=UTC)).startswith("version 2 since")
    assert "training asked for: logloss" in summary.why("flights", ledger, datetime(2026, 1, 2, tzinfo=UTC))


def test_several_processes_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    claims = FileLedger(tmp_path).read("flights", RequestClaimed)
    for name in "abc":
        assert [int(c.request.split()[0]) for c in claims if c.run == name] == list(range(100))


def claims_of(ledger: FileLedger) -> list[str]:
    return [event.request for event in ledger.read("flights", RequestClaimed)]


def test_a_half_written_line_is_skipped_with_a_note_and_harms_no_later_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = FileLedger(tmp_path)
    ledger.append("flights", RequestClaimed(request="1", run="r"))
    with (tmp_path / "flights" / "requested.jsonl").open("a") as file:
        file.write('{"kind": "requested", "req')
    with caplog.at_level(logging.WARNING):
        assert claims_of(ledger) == ["1"]
    assert "requested.jsonl line 2 is half-written" in caplog.text
    ledger.append("flights", RequestClaimed(request="2", run="r"))
    assert claims_of(ledger) == ["1", "2"]


def test_a_row_of_another_shape_is_skipped_with_a_note_that_names_file_line_and_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = FileLedger(tmp_path)
    ledger.append("flights", RequestClaimed(request="1", run="r"))
    at = '"at": "2026-01-01T00:00:00Z", "kind": "requested"'
    with (tmp_path / "flights" / "requested.jsonl").open("a") as file:
        file.write(f'{{"request": "2", {at}}}\n{{"request": "3", "run": "r", "unheard": 1, {at}}}\n')
    with caplog.at_level(logging.WARNING):
        assert claims_of(ledger) == ["3", "1"], "a key that this release does not know is ignored"
    assert "requested.jsonl line 2 is skipped" in caplog.text
    assert "`run`" in caplog.text


def test_a_kind_of_a_later_release_is_skipped_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = FileLedger(tmp_path)
    ledger.append("flights", RequestClaimed(request="1", run="r"))
    (tmp_path / "flights" / "unheard_of.jsonl").write_text('{"at": "2026-01-01T00:00:00Z", "kind": "unheard_of"}\n')
    with caplog.at_level(logging.WARNING):
        assert len(ledger.read_all("flights")) == 1
    assert "unheard_of.jsonl is skipped" in caplog.text


def test_a_ledger_in_the_tests_time_stamps_its_events() -> None:
    clock = datetime(2026, 3, 1, tzinfo=UTC)
    ledger, event = FakeLedger(clock=lambda: clock), VersionApproved(version="1", by="ada")
    ledger.append("toy", event)
    assert ledger.read("toy", VersionApproved) == [replace(event, at=clock)]
