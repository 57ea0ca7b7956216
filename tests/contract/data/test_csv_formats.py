"""The shipped specs of raw Criteo and Avazu files: files of those shapes go through the real stages, every row accounted for."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.adapters.engines.duckdb import DuckDB
from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.artifacts.window_records import LandingReport
from include.domain.errors import UserMistake
from include.domain.verdict import Outcome
from include.domain.windows import Window
from include.local import clicks
from include.online_store.opening import open_store
from include.settings import ROOT
from include.spec.loading import find, load_all
from include.spec.model_spec import ModelSpec
from include.stages.data import landing, validation
from include.stages.features import features
from include.stages.features.features import FeatureServices

pytestmark = pytest.mark.filterwarnings("ignore")  # of Great Expectations' own making
SHIPPED = ROOT / "docs" / "models"
ROWS, DAYS = 1000, 2


class Home:
    """Two days of a shape's files in the landing folder that its shipped spec names."""

    def __init__(self, path: Path, shape: str) -> None:
        self.path, self.spec = path, find(shape, SHIPPED)
        self.inbox = path / "inbox" / shape
        self.tables, self.records = DeltaTables(path / "tables"), JsonRecords(path / "records")
        start = self.spec.schedule.start
        self.windows = [Window(start + timedelta(days=n), start + timedelta(days=n + 1)) for n in range(DAYS)]
        end = self.windows[-1].end.date()
        clicks.deliver(self.inbox, start.date(), end, ROWS, form=shape)
        self.files = sorted(self.inbox.iterdir())

    def add(self, *lines: str) -> None:
        """To the end of the first day's file."""
        self.files[0].write_text(self.files[0].read_text() + "".join(f"{line}\n" for line in lines))

    def line(self, number: int) -> str:
        return self.files[0].read_text().splitlines()[number]

    def land(self, spec: ModelSpec | None = None) -> LandingReport:
        spec = spec or self.spec
        source = FileSource(spec.source, self.path)
        return landing.land(spec, self.windows, source, self.tables, self.records, "run")

    def rest(self) -> list[str]:
        """Validation and features; the windows whose features stand."""
        from include.adapters.validation.great_expectations import GreatExpectations

        judge, store = GreatExpectations(self.spec, self.path / "pages"), open_store(str(self.path), self.spec.name)
        verdicts = validation.validate(self.spec, self.windows, self.tables, judge, self.records, "run")
        assert {v.outcome for v in verdicts.values()} == {Outcome.PASS}, verdicts
        return features.build(
            self.spec, self.windows, FeatureServices(self.tables, self.records, DuckDB(), store), "run"
        )

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(self.tables.read(table, self.windows).to_pylist())


@pytest.fixture
def made(tmp_path: Path) -> clicks.Day:
    return clicks.Clicks().day(clicks.FIRST, ROWS)


def test_the_shipped_specs_load() -> None:
    specs, errors = load_all(SHIPPED)
    assert not errors
    assert {spec.name for spec in specs} == {"avazu", "criteo"}


def test_raw_criteo_files_land_in_the_days_of_their_names_in_their_own_order(tmp_path: Path, made: clicks.Day) -> None:
    home = Home(tmp_path, "criteo")
    good = home.line(0)
    home.add(good, good.replace("\t", "\tmany\t", 1).rsplit("\t", 1)[0], "1\t2")
    report = home.land()
    first, second = report.windows
    assert (first.rows_in, first.landed, first.quarantined, first.duplicates) == (ROWS + 3, ROWS + 1, 2, 0)
    assert (second.rows_in, second.landed) == (ROWS, ROWS)
    reasons = {(r["line"], r["reason"]) for r in home.rows("quarantine")}
    assert reasons == {(ROWS + 2, "not a finite number: many"), (ROWS + 3, "2 fields, not 40")}
    assert home.rest() == ["2024-01-01", "2024-01-02"]
    landed = [row for row in home.rows("landed") if row["window"] == "2024-01-01"]
    assert {row["day"] for row in landed} == {datetime(2024, 1, 1, tzinfo=UTC)}
    assert [row["line"] for row in landed] == [*range(1, ROWS + 2)]
    fields = ["click", *clicks.NUMBERS, *clicks.CATEGORIES]
    assert pl.DataFrame(landed[:ROWS]).select(fields).equals(made.rows.select(fields))


def test_raw_avazu_files_land_by_their_hour(tmp_path: Path) -> None:
    home = Home(tmp_path, "avazu")
    header, good = home.line(0).split(","), home.line(1)
    assert header[:3] == ["id", "click", "hour"]
    assert (len(header), header[-8:]) == (24, [f"C{n}" for n in range(14, 22)])
    key, click, hour, rest = good.split(",", 3)
    home.add(good, f"7,{click},14109900,{rest}", f"8,2,{hour},{rest}")
    report = home.land()
    assert (report.read, report.landed, report.quarantined, report.duplicates) == (2 * ROWS + 3, 2 * ROWS, 2, 1)
    assert sum(w.rows_in for w in report.windows) == report.read
    reasons = {r["reason"] for r in home.rows("quarantine")}
    assert reasons == {"not a time in UTC: 14109900", "neither of 0 and 1: 2"}
    assert home.rest() == ["2014-10-21", "2014-10-22"]
    landed = home.rows("landed")
    (row,) = [row for row in landed if row["id"] == key]
    assert row["hour"] == datetime.strptime(hour, "%y%m%d%H").replace(tzinfo=UTC)
    assert {row["hour"].date() for row in landed} == {date(2014, 10, 21), date(2014, 10, 22)}
    assert row["C21"] == good.rsplit(",", 1)[1]


def test_a_file_that_has_the_column_itself_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path, "criteo")
    names = ("place", *home.spec.source.names[1:])
    spec = home.spec.model_copy(update={"source": home.spec.source.model_copy(update={"names": names})})
    with pytest.raises(UserMistake, match=r"day_0\.tsv: has a column place; take it out of columns\.added"):
        home.land(spec)
