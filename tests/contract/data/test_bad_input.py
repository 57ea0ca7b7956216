"""What a user's files may hold, and what landing makes of it: the real reader, the real tables."""

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.adapters.sources import delimited
from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.artifacts.window_records import LandingReport
from include.domain.errors import Unavailable, UserMistake
from include.domain.windows import Window, parse_utc
from include.stages.data import landing
from tests.unit.toy import toy

HEADER = "at,key,y,x,c\n"
GOOD = "2026-01-01T05:00:00Z,{n},1,1.5,a\n"
DAY = Window(parse_utc("2026-01-01"), parse_utc("2026-01-02"))
LENIENT = {"max_quarantined": 1}


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "inbox" / "toy" / "rows.csv"
        self.file.parent.mkdir(parents=True)
        self.tables, self.records = DeltaTables(path / "tables"), JsonRecords(path / "records")

    def give(self, content: str | bytes, name: str = "rows.csv") -> None:
        data = content.encode() if isinstance(content, str) else content
        (self.file.parent / name).write_bytes(data)

    def land(self, **sections: Any) -> LandingReport:
        spec = toy(**{"source": {"path": "inbox/toy", "format": "csv"}, **sections})
        source = FileSource(spec.source, self.path)
        return landing.land(spec, [DAY], source, self.tables, self.records, "run")

    def landed(self, column: str) -> list[Any]:
        return list(self.tables.read("landed", [DAY])[column].to_pylist())

    def rejected(self) -> list[tuple[int, str, str]]:
        rows = self.tables.read("quarantine", [DAY]).to_pylist()
        return [(r["line"], r["column"], r["reason"]) for r in rows]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def good(rows: int, start: int = 0) -> str:
    return "".join(GOOD.format(n=n) for n in range(start, start + rows))


def test_empty_file(home: Home) -> None:
    home.give("")
    with pytest.raises(UserMistake, match=r"inbox/toy/rows\.csv: the file is empty, not even a header"):
        home.land()


def test_header_only_lands_no_rows(home: Home) -> None:
    home.give(HEADER)
    assert home.land().windows[0].landed == 0
    assert home.landed("x") == []


def test_wrong_delimiter(home: Home) -> None:
    home.give((HEADER + good(3)).replace(",", ";"))
    with pytest.raises(UserMistake, match="its only column is 'at;key;y;x;c': is the delimiter right"):
        home.land()
    source = {"path": "inbox/toy", "format": "csv", "delimiter": ";"}
    assert home.land(source=source).landed == 3


def test_missing_column(home: Home) -> None:
    home.give(HEADER.replace(",c\n", "\n") + good(1).replace(",a", ""))
    with pytest.raises(UserMistake, match=r"rows\.csv: no column c"):
        home.land()


def test_extra_column(home: Home) -> None:
    home.give(HEADER.replace("\n", ",d\n") + good(1).replace("\n", ",1\n"))
    with pytest.raises(UserMistake, match="unknown column d"):
        home.land()


def test_a_column_turns_to_text_half_way(home: Home) -> None:
    home.give(HEADER + good(50) + good(50, start=50).replace("1.5", "n/a"))
    with pytest.raises(UserMistake, match=r"50 of 100 rows \(50\.0%\)") as raised:
        home.land()
    assert "50 × x: not a finite number: n/a (inbox/toy/rows.csv line 52)" in str(raised.value)
    assert home.tables.version("landed") is None


def test_mixed_time_zones_and_forms_are_one_time(home: Home) -> None:
    times = [
        "2026-01-01T05:00:00Z",
        "2026-01-01T00:00:00-05:00",
        "2026-01-01 06:00:00+0100",
        "2026-01-01 05:00:00",
        "1767243600",
        "1767243600000",
        "2026-01-01T05:00",
    ]
    home.give(HEADER + "".join(f"{t},{n},0,1,a\n" for n, t in enumerate(times)))
    home.land()
    assert set(home.landed("at")) == {parse_utc("2026-01-01T05:00:00Z")}
    assert len(home.landed("at")) == len(times)


def test_daylight_saving_jump(home: Home) -> None:
    home.give(HEADER + "2025-11-02 01:30:00,a,0,1,a\n2025-03-09 02:30:00,b,0,1,a\n")
    columns = {
        "time": "at",
        "zone": "America/New_York",
        "label": "y",
        "keys": ["key"],
        "numeric": ["x"],
        "categorical": ["c"],
    }
    spec = toy(source={"path": "inbox/toy", "format": "csv"}, columns=columns, validation=LENIENT)
    days = [Window(parse_utc(d), parse_utc(d) + timedelta(days=1)) for d in ("2025-03-09", "2025-11-02")]
    landing.land(spec, days, FileSource(spec.source, home.path), home.tables, home.records, "run")
    assert home.tables.read("landed", days)["at"].to_pylist() == [
        parse_utc("2025-11-02T05:30:00Z")
    ]  # the earlier 01:30
    assert "not a time in America/New_York" in home.tables.read("quarantine", days)["reason"].to_pylist()[0]


def test_times_in_the_future(home: Home) -> None:
    home.give(HEADER + good(3) + "9999-12-31T00:00:00Z,never,0,1,a\n", "2026-01-01.csv")
    path = "inbox/toy/{window:%Y-%m-%d}.csv"
    home.land(source={"path": path, "format": "csv"}, validation=LENIENT)
    assert home.rejected() == [(5, "at", "not a time in UTC: 9999-12-31T00:00:00Z")]


def test_nan_is_missing_and_infinity_is_a_fault(home: Home) -> None:
    home.give(HEADER + good(1).replace("1.5", "NaN") + good(1, start=1).replace("1.5", "-inf"))
    home.land(validation=LENIENT)
    assert home.landed("x") == [None]
    assert home.rejected() == [(3, "x", "not a finite number: -inf")]


def test_a_faulty_row_is_kept_as_it_was_written_though_its_numbers_could_be_read(home: Home) -> None:
    home.give(
        HEADER + good(2) + "\n" + good(1, start=2).replace("\n", "\r\n") + "2026-01-01T05:00:00Z,odd,2,+01.50,a\r\n"
    )
    home.land(validation=LENIENT)
    rejected = home.tables.read("quarantine", [DAY]).to_pylist()[0]
    assert (rejected["line"], json.loads(rejected["raw"])["x"]) == (6, "+01.50")
    assert home.landed("x") == [1.5] * 3


def test_a_line_that_holds_nothing_but_a_missing_number_is_no_blank_line(home: Home) -> None:
    home.give(HEADER + good(1) + ",,,NA,\n" + ",,,,\n" + good(1, start=1).replace("1.5", "NA"))
    home.land(validation=LENIENT, source={"path": "inbox/toy", "format": "csv", "nulls": ["", "NA"]})
    assert home.rejected() == [(3, "at", "not a time in UTC: (missing)")]
    assert home.landed("x") == [1.5, None]


def test_a_label_that_is_neither_of_two_values(home: Home) -> None:
    labels = ["1", "0", "true", "False", "1.0", "", "2", "yes"]
    home.give(HEADER + "".join(f"2026-01-01T05:00:00Z,{n},{y},1,a\n" for n, y in enumerate(labels)))
    home.land(validation=LENIENT)
    assert home.landed("y") == [1, 0, 1, 0, 1, None]
    assert [reason for _, _, reason in home.rejected()] == ["neither of 0 and 1: 2", "neither of 0 and 1: yes"]


def test_100_mb_in_one_field(home: Home) -> None:
    home.give(HEADER + good(2) + "2026-01-01T05:00:00Z,big,0,1," + "z" * 100_000_000 + "\n" + good(2, start=2))
    home.land(validation=LENIENT)
    assert len(home.landed("x")) == 4
    assert home.rejected() == [(4, "", "longer than 16 MB")]


def test_a_quote_that_is_never_closed_costs_its_own_line(home: Home) -> None:
    home.give(HEADER + good(2) + good(1, start=2).replace(",a", ',"a') + good(3, start=3).replace(",a", ',"a, b"'))
    home.land(validation=LENIENT)
    assert home.landed("c") == ["a", "a", "a, b", "a, b", "a, b"]
    assert home.rejected() == [(4, "", "a quote that is never closed")]


def test_too_few_and_too_many_fields(home: Home) -> None:
    home.give(HEADER + good(1) + "2026-01-01T05:00:00Z,short\n\n" + good(1, start=1).replace("\n", ",more\n"))
    home.land(validation=LENIENT)
    assert home.rejected() == [(3, "", "2 fields, not 5"), (5, "", "6 fields, not 5")]


def test_truncated_gzip(home: Home) -> None:
    whole = gzip.compress((HEADER + good(50_000)).encode())
    home.give(whole[: len(whole) // 2], "rows.csv.gz")
    with pytest.raises(UserMistake, match=r"rows\.csv\.gz: cannot be read after record \d+.*deliver it again"):
        home.land()
    home.give(whole, "rows.csv.gz")
    assert home.land().landed == 50_000


def test_wrong_encoding(home: Home) -> None:
    home.give((HEADER + good(200)).encode() + good(1, start=900).replace(",a", ",Zürich").encode("latin-1"))
    home.land()
    assert len(home.landed("c")) == 200
    assert home.rejected() == [(202, "", "not UTF-8")]
    home.give((HEADER + good(2)).encode("utf-16"))
    with pytest.raises(UserMistake, match="the header is not UTF-8; convert the file"):
        home.land()


def test_a_file_that_changes_while_it_is_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 1024)
    home.give(HEADER + good(500))
    spec = toy(source={"path": "inbox/toy", "format": "csv"})
    source = FileSource(spec.source, home.path)
    batches = source.read(source.files([DAY])[0])
    next(batches)
    with home.file.open("a") as more:
        more.write(good(1, start=500))
    with pytest.raises(Unavailable, match=r"rows\.csv: changed while it was read"):
        list(batches)


@pytest.mark.parametrize("path", ["inbox/gone.csv", "inbox/gone/*.csv", "inbox/{window:%Y-%m-%d}.csv"])
def test_a_source_that_is_not_there(home: Home, path: str) -> None:
    with pytest.raises(Unavailable, match="no s"):
        home.land(source={"path": path, "format": "csv"})


def test_a_source_that_disappears(home: Home) -> None:
    home.give(HEADER + good(5))
    source = FileSource(toy(source={"path": "inbox/toy", "format": "csv"}).source, home.path)
    file = source.files([DAY])[0]
    home.file.unlink()
    with pytest.raises(Unavailable, match="vanished"):
        list(source.read(file))


def test_a_broken_parquet_file(home: Home) -> None:
    path = home.file.with_suffix(".parquet")
    pq.write_table(pa.table({"at": ["2026-01-01"], "key": ["a"], "y": [1], "x": [1.0], "c": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserMistake, match="not a whole Parquet file"):
        home.land(source={"path": "inbox/toy", "format": "parquet"})


def test_a_column_of_lists_is_refused_by_name(home: Home) -> None:
    rows = pa.table({"at": ["2026-01-01"], "key": ["a"], "y": [1], "x": [[1.0, 2.0]], "c": ["a"]})
    pq.write_table(rows, home.file.with_suffix(".parquet"))
    with pytest.raises(UserMistake, match="column x holds List"):
        home.land(source={"path": "inbox/toy", "format": "parquet"})
