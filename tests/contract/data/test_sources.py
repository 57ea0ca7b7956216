"""Sources on disk and on a real S3 server: whatever the form, the same rows land."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow.fs import FileSystem, LocalFileSystem

from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.artifacts.window_records import LandingReport
from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.domain.windows import Grain, Window, parse_utc
from include.ports.sources import Source
from include.settings import Settings
from include.stages.data import landing
from include.wiring import Parts
from tests.bucket import bucket
from tests.unit.toy import toy

DAYS = list(Window(parse_utc("2026-01-01"), parse_utc("2026-01-03")).split(Grain.DAY))
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(tmp_path_factory.mktemp("s3")) as uri:
        yield uri


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a test's files lie."""
    if request.param == "disk":
        return f"{tmp_path}/inbox"
    return f"{request.getfixturevalue('uri')}/{tmp_path.name}"


def rows(*keys: str, day: str = "2026-01-01", x: float = 1.5) -> pa.Table:
    return pa.table(
        {
            "at": [f"{day}T05:00:00Z"] * len(keys),
            "key": keys,
            "y": [1] * len(keys),
            "x": [x] * len(keys),
            "c": ["a"] * len(keys),
        }
    )


def csv(table: pa.Table) -> bytes:
    lines = [table.column_names, *(map(str, row.values()) for row in table.to_pylist())]
    return "".join(",".join(line) + "\n" for line in lines).encode()


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def give(place: str, content: bytes) -> None:
    files, path = FileSystem.from_uri(place) if "://" in place else (LocalFileSystem(), place)
    files.create_dir(path.rpartition("/")[0])
    with files.open_output_stream(path, compression=None) as target:
        target.write(content)


def by_files(ending: str, form: Callable[[pa.Table], bytes]) -> Callable[[str], None]:
    def deliver(root: str) -> None:
        for day in DAYS:
            give(f"{root}/{day.label}{ending}", form(rows("a", "b", day=day.label)))

    return deliver


def by_table(root: str) -> None:
    for day in DAYS:
        write_deltalake(f"{root}/t", rows("a", "b", day=day.label), mode="append", partition_by=["c"])


def by_window_tables(root: str) -> None:
    for day in DAYS:
        write_deltalake(f"{root}/{day.label}", rows("a", "b", day=day.label))


class Home:
    def __init__(self, path: Path) -> None:
        self.path, self.tables, self.records = path, DeltaTables(path / "tables"), JsonRecords(path / "records")

    def source(self, path: str, kind: str, credentials: dict[str, str] | None = None) -> Source:
        return Parts(Settings(home=self.path)).source(toy(source={"path": path, "format": kind}), credentials or {})

    def land(self, path: str, kind: str, credentials: dict[str, str] | None = None) -> LandingReport:
        spec = toy(
            source={"path": path, "format": kind},
            columns={"time": "at", "label": "y", "keys": ["at", "key"], "numeric": ["x"], "categorical": ["c"]},
        )
        return landing.land(spec, DAYS, self.source(path, kind, credentials), self.tables, self.records, "run")

    def landed(self, *names: str) -> list[tuple[Any, ...]]:
        table = self.tables.read("landed", DAYS)
        return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("deliver", "path", "kind"),
    [
        (by_files(".csv", csv), "2026-01-01.csv", "csv"),
        (by_files(".csv", csv), "", "csv"),
        (by_files(".csv", csv), "/2026-*.csv", "csv"),
        (by_files(".csv.gz", lambda t: gzip.compress(csv(t))), "{window:%Y-%m-%d}.csv.gz", "csv"),
        (by_files(".parquet", parquet), "*.parquet", "parquet"),
        (by_files("/part.parquet", parquet), "{window:%Y-%m-%d}", "parquet"),
        (by_table, "t", "delta"),
        (by_window_tables, "{window:%Y-%m-%d}", "delta"),
    ],
    ids=["file", "folder", "glob", "gz by window", "Parquet glob", "folder by window", "Delta", "Delta by window"],
)
def test_the_same_rows_land_from_every_form(
    uri: str, home: Home, deliver: Callable[[str], None], path: str, kind: str
) -> None:
    root = f"{uri}/{home.path.name}"
    deliver(root)
    report = home.land(f"{root}/{path.removeprefix('/')}".rstrip("/"), kind)
    days = DAYS[:1] if path == "2026-01-01.csv" else DAYS
    assert (report.landed, report.quarantined, report.duplicates) == (2 * len(days), 0, 0)
    assert home.landed("at", "key", "y", "x", "c") == [
        (parse_utc(f"{day.label}T05:00:00Z"), key, 1, 1.5, "a") for day in days for key in "ab"
    ]


def test_a_file_on_s3_is_named_by_its_uri(uri: str, home: Home) -> None:
    give(f"{uri}/named/a.csv", csv(rows("a")))
    home.land(f"{uri}/named", "csv")
    assert home.landed("file", "line") == [(f"{uri}/named/a.csv", 2)]


def test_a_delta_table_is_what_its_newest_version_holds(root: str, home: Home) -> None:
    place = f"{root}/t"
    write_deltalake(place, rows("a", "b"), partition_by=["c"])
    first = home.source(place, "delta").files(DAYS)[0]
    write_deltalake(place, rows("c", "a", x=9), mode="overwrite", partition_by=["c"])
    home.land(place, "delta")
    assert home.landed("key", "x") == [("a", 9), ("c", 9)]
    assert home.source(place, "delta").files(DAYS)[0].digest != first.digest


def test_records_of_a_delta_table_that_grows_keep_their_numbers(root: str, home: Home) -> None:
    place = f"{root}/t"
    for keys in ("ab", "c", "de"):
        write_deltalake(place, rows(*keys), mode="append", partition_by=["c"])
        home.land(place, "delta")
    assert home.landed("line", "key") == [(n + 1, key) for n, key in enumerate("abcde")]
    assert {name for (name,) in home.landed("file")} == {place}


def test_a_row_updated_in_a_delta_table_is_updated_where_it_landed(root: str, home: Home) -> None:
    place = f"{root}/t"
    write_deltalake(place, rows("a", "b"))
    home.land(place, "delta")
    table = DeltaTable(place)
    table.update(predicate="key = 'a'", updates={"x": "7.0"})
    table.delete("key = 'b'")
    table.optimize.compact()
    home.land(place, "delta")
    assert home.landed("key", "x") == [("a", 7)]


def test_a_delta_table_written_while_it_is_read_stays_the_version_it_was(root: str, home: Home) -> None:
    place = f"{root}/t"
    write_deltalake(place, rows("a"))
    source = home.source(place, "delta")
    (file,) = source.files(DAYS)
    write_deltalake(place, rows("b"), mode="overwrite")
    assert [key for batch in source.read(file) for key in batch.rows["key"].to_pylist()] == ["a"]


def test_a_column_younger_than_the_delta_table_is_missing_in_its_older_rows(root: str, home: Home) -> None:
    place = f"{root}/t"
    write_deltalake(place, rows("a").drop_columns(["x"]))
    write_deltalake(place, rows("b"), mode="append", schema_mode="merge")
    home.land(place, "delta")
    assert home.landed("key", "x") == [("a", None), ("b", 1.5)]


@pytest.mark.parametrize("path", ["t", "{window:%Y-%m-%d}"])
def test_a_folder_that_is_no_delta_table(root: str, home: Home, path: str) -> None:
    give(f"{root}/t/rows.csv", csv(rows("a")))
    with pytest.raises(Unavailable, match=r"no such Delta table|no source file for window 2026-01-01 and 1 more"):
        home.land(f"{root}/{path}", "delta")


def test_a_delta_table_whose_deleted_rows_only_a_newer_reader_sees(home: Home) -> None:
    properties = {"delta.enableDeletionVectors": "true"}
    write_deltalake(home.path / "t", rows("a"), configuration=properties)
    with pytest.raises(UserMistake, match=r"^t: .*deletionVectors.*write the table without"):
        home.land("t", "delta")


PLACES = [("a.csv", "csv"), ("*.parquet", "parquet"), ("{window:%Y}", "csv"), ("t", "delta")]


def landing_error(home: Home, path: str, kind: str, credentials: dict[str, str] | None = None) -> PerennialError:
    with pytest.raises(UserMistake) as raised:
        home.land(path, kind, credentials)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("s3://")
    return raised.value


@pytest.mark.parametrize(("path", "kind"), PLACES)
def test_wrong_credentials_are_told_in_a_line(uri: str, home: Home, path: str, kind: str) -> None:
    give(f"{uri}/secret/a.csv", csv(rows("a")))
    error = landing_error(home, f"{uri}/secret/{path}", kind, dict(zip(KEYS, ("any", "wrong"), strict=True)))
    assert "S3 refuses the credentials; correct AWS_ACCESS_KEY_ID" in str(error)


@pytest.mark.parametrize(("path", "kind"), PLACES)
def test_a_missing_bucket_is_told_in_a_line(uri: str, home: Home, path: str, kind: str) -> None:
    assert "there is no such bucket" in str(landing_error(home, f"{uri}-missing/{path}", kind))


@pytest.mark.parametrize(("path", "kind"), [("a.csv", "csv"), ("t", "delta")])
def test_a_connection_goes_before_the_environment(
    uri: str, home: Home, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    give(f"{uri}/connected/a.csv", csv(rows("a", "b")))
    write_deltalake(f"{uri}/connected/t", rows("a", "b"), mode="overwrite")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    landing_error(home, f"{uri}/connected/{path}", kind)
    assert home.land(f"{uri}/connected/{path}", kind, dict.fromkeys(KEYS, "any")).landed == 2


@pytest.mark.parametrize(("kind", "form"), [("csv", csv), ("parquet", parquet)])
def test_a_file_that_leaves_the_bucket_before_it_is_read(
    uri: str, home: Home, kind: str, form: Callable[[pa.Table], bytes]
) -> None:
    give(f"{uri}/leaving/a.{kind}", form(rows("a")))
    source = home.source(f"{uri}/leaving/a.{kind}", kind)
    (file,) = source.files(DAYS)
    FileSystem.from_uri(uri)[0].delete_file(file.name.removeprefix("s3://"))
    with pytest.raises(Unavailable, match="vanished"):
        list(source.read(file))


def test_a_server_that_goes_away_is_no_fault_of_the_file(tmp_path: Path, home: Home) -> None:
    (tmp_path / "s3").mkdir()
    with bucket(tmp_path / "s3", "gone") as uri:
        give(f"{uri}/a.parquet", parquet(rows("a")))
        source = home.source(f"{uri}/a.parquet", "parquet")
        (file,) = source.files(DAYS)
    with pytest.raises(Unavailable, match=r"^s3://gone/a\.parquet: .*AWS Error NETWORK_CONNECTION"):
        list(source.read(file))
