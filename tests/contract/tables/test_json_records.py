"""Records on disk: those of earlier code are read, and every key stays where it was."""

import json
from pathlib import Path

import pytest

from include.adapters.tables.json_records import JsonRecords
from include.artifacts.window_records import (
    BuiltWindow,
    DeliveredFile,
    LandedWindow,
    LandingCounts,
    LandingReport,
    ValidatedWindow,
    WindowRecord,
)
from include.domain.errors import Corrupt
from include.domain.verdict import Outcome
from include.ports.tables import Records
from tests.memory import MemoryRecords

#: The records of one window and one run, as they were written when records were plain dictionaries.
EARLIER, LABEL, RUN = Path(__file__).with_name("records"), "2026-01-02T05", "run0"
NAMES = [(LandedWindow, LABEL), (ValidatedWindow, LABEL), (BuiltWindow, LABEL), (LandingReport, RUN)]


@pytest.fixture(params=["disk", "memory"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    return JsonRecords(tmp_path) if request.param == "disk" else MemoryRecords()


def test_a_landed_window_of_earlier_code_is_read() -> None:
    landed = JsonRecords(EARLIER).read(LandedWindow, LABEL)
    assert landed is not None
    assert (landed.window, landed.rows_in, landed.landed, landed.table_version) == (LABEL, 10, 10, 1)
    assert landed.files.keys() == {"inbox/toy/a.csv", "inbox/toy/b.csv.gz"}
    assert landed.files["inbox/toy/a.csv"].digest is not None
    assert not landed.files["inbox/toy/a.csv"].late


def test_a_validated_window_of_earlier_code_is_read() -> None:
    validated = JsonRecords(EARLIER).read(ValidatedWindow, LABEL)
    assert validated is not None
    assert validated.verdict.outcome is Outcome.PASS
    assert [check.name for check in validated.verdict.checks] == ["rows", "volume", "label_shift"]
    assert validated.measures["nulls.x"] == 0.2


def test_a_built_window_and_a_landing_of_earlier_code_are_read() -> None:
    built, report = JsonRecords(EARLIER).read(BuiltWindow, LABEL), JsonRecords(EARLIER).read(LandingReport, RUN)
    assert built is not None
    assert built.rows == 10
    assert report is not None
    assert (report.read, report.landed, report.quarantined) == (906, 26, 4)
    assert report.windows[0].table_version == 0


@pytest.mark.parametrize(("record_type", "name"), NAMES)
def test_a_record_is_written_with_the_keys_that_it_had(
    tmp_path: Path, record_type: type[WindowRecord], name: str
) -> None:
    record = JsonRecords(EARLIER).read(record_type, name)
    assert record is not None
    JsonRecords(tmp_path).write(name, record)
    path = Path(record_type.kind) / f"{name}.json"
    assert json.loads((tmp_path / path).read_text()) == json.loads((EARLIER / path).read_text())


def test_what_is_written_is_read_and_the_newest_stays(records: Records) -> None:
    assert records.read(LandingReport, "run") is None
    counts = LandingCounts(
        window=LABEL, rows_in=3, landed=1, quarantined=1, duplicates=1, late=0, digest="d", table_version=None
    )
    for read in (5, 3):
        records.write("run", LandingReport(windows=(counts,), read=read))
    assert records.read(LandingReport, "run") == LandingReport(windows=(counts,), read=3)


def test_a_landed_window_holds_its_counts(records: Records) -> None:
    landed = JsonRecords(EARLIER).read(LandedWindow, LABEL)
    assert landed is not None
    records.write(LABEL, landed)
    assert records.read(LandedWindow, LABEL) == landed
    assert type(landed.counts) is LandingCounts
    assert landed.counts.digest == landed.digest
    assert isinstance(next(iter(landed.files.values())), DeliveredFile)


@pytest.mark.parametrize("content", ["{", "[]", '{"window": "w"}', '{"rows": "many"}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "w.json").write_text(content)
    with pytest.raises(Corrupt, match=r"built/w\.json: not a record"):
        JsonRecords(tmp_path).read(BuiltWindow, "w")
