import json
from dataclasses import replace
from typing import Any

import pytest

from include.server.responses import RequestError
from include.server.rows import RowReader
from tests.serving import ENCODING, KEYS, ROW


def read(body: bytes, lenient: bool = False) -> list[tuple[bytes, bytes]]:
    reader = RowReader(ENCODING, KEYS, max_rows=3, lenient=lenient)
    return [(row.ids, row.numbers) for row in reader.read(body)]


def row(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {**ROW, **changes}.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (row(carrier=...), "carrier"),
        (row(at=...), "at"),
        (row(speed=1), "speed"),
        (row(carrier=["UA"]), "carrier"),
        (row(carrier={"a": 1}), "carrier"),
        (row(carrier="x" * 2000), "carrier"),
        (row(distance="far"), "distance"),
        (row(distance=10**400), "distance"),
        (row(distance=[[1]]), "distance"),
        (row(distance=1).replace(b": 1,", b": 1e999,"), "distance"),
        (row(at="noon"), "at"),
        (row(at=True), "at"),
        (row(at="0001-01-01T00:00:00Z"), "at"),
        (row(flight={}), "flight"),
        (b'{"rows": [' + row() + b", " + row(wind=...) + b"]}", "rows[1].wind"),
        (b'{"rows": [' + row() + b", " + row(wind="much") + b"]}", "rows[1].wind"),
        (b'{"rows": []}', "rows"),
        (b'{"rows": ' + json.dumps([ROW] * 4).encode() + b"}", "rows"),
        (b'{"rows": 1}', "rows"),
        (b'{"rows": [1]}', "rows[0]"),
        (b'{"rows": [], "more": 1}', "rows"),
    ],
)
def test_wrong_rows_are_refused_by_the_field_at_fault(body: bytes, field: str) -> None:
    with pytest.raises(RequestError) as error:
        read(body)
    assert (error.value.status, error.value.field) == (400, field)
    assert field in error.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        row(distance=1).replace(b": 1,", b": NaN,"),
        b"[" * 100_000,
        row(carrier=b"\\udcff".decode("unicode_escape")),
        row(carrier="UA").replace(b"UA", b"\xff"),
        row() + b"x",
    ],
)
def test_what_is_no_json_object_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        read(body)
    assert error.value.status == 400
    assert error.value.reason


def test_values_come_as_the_source_has_them() -> None:
    assert read(row(distance="1400", wind=8.5)) == read(row()) == read(b'{"rows": [' + row() + b"]}")
    assert read(row(at=1362139200)) == read(row())


def test_a_row_is_logged_as_it_was_sent_on_one_line() -> None:
    strict, lenient = (RowReader(ENCODING, KEYS, max_rows=3, lenient=lenient) for lenient in (False, True))
    sent = json.dumps({**ROW, "flight": "ü\n", "wind": None}, indent=1).encode()
    for body in (sent, b' {"rows":\r\n[' + sent + b"]}"):
        logged = bytes(strict.log_json(strict.read(body)[0]))
        assert b"\n" not in logged and json.loads(logged) == {**ROW, "flight": "ü\n", "wind": None}
    assert json.loads(bytes(lenient.log_json(lenient.read(row(speed=1))[0]))) == ROW


def test_keys_may_be_left_out_and_then_there_is_no_key() -> None:
    reader = RowReader(ENCODING, ("flight",), max_rows=1)
    assert reader.key(reader.read(row())[0]) == "1545"
    assert reader.key(reader.read(row(flight=...))[0]) is None


def test_lenient_drops_unknown_columns_but_still_requires_every_feature() -> None:
    assert read(row(speed=1), lenient=True) == read(row())
    with pytest.raises(RequestError, match="carrier"):
        read(row(carrier=..., speed=1), lenient=True)


def test_time_is_logged_as_sent_and_epoch_seconds_as_iso() -> None:
    reader = RowReader(replace(ENCODING, time_parts=(), categorical=("carrier", "origin")), KEYS, max_rows=1)
    times = [reader.time(reader.read(row(at=at))[0]) for at in ("2013-03-01T12:00:00Z", 1362139200, None, 1e300)]
    assert times == ["2013-03-01T12:00:00Z", "2013-03-01T12:00:00+00:00", None, None]
