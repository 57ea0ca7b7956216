"""What both online stores promise to the DAG that lands windows, to the stream of outcomes, and to the servers that read."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import redis

from include.domain.errors import Unavailable, UserMistake
from include.domain.features.aggregates import AggregateGroup, Aggregates
from include.domain.features.hourly_sums import HourlySums, pack
from include.domain.features.online_features import EventOutcome, LandedSums
from include.online_store.opening import open_store
from include.online_store.protocol import OnlineStore, decode_outcome, encode_outcome
from include.server.lookups import Lookups
from tests.serving import free_port, wait_for

OpenStore = Callable[[], OnlineStore]
OUTCOME = EventOutcome("k1", "2026-01-02", 3600, {"who": "a", "n": None}, {"late": 1.0, "delay": None})


def sums(window: str, version: int, packed: bytes = b"p\nq") -> LandedSums:
    return LandedSums(window, version, 100, packed)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    with redis.Redis(port=port) as client:
        wait_for(lambda: _answers(client), "Redis to answer")
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(params=["embedded", "redis"])
def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the store of a new model anew with each call, as another process would."""
    url = str(tmp_path) if request.param == "embedded" else request.getfixturevalue("redis_url")
    return lambda: open_store(url, tmp_path.name)


def test_what_one_writes_another_reads_whole(open_another: OpenStore) -> None:
    writer, reader = open_another(), open_another()
    assert reader.read(None).written_at is None
    assert writer.land([sums("2026-01-01", 3), sums("2026-01-02", 3)], oldest="") == 2
    assert writer.add([OUTCOME]) == 1
    content = reader.read(None)
    assert sorted(content.landed or [], key=lambda w: w.window) == [sums("2026-01-01", 3), sums("2026-01-02", 3)]
    assert content.outcomes == [OUTCOME]
    assert content.written_at is not None


def test_a_reader_with_a_cursor_gets_what_is_new(open_another: OpenStore) -> None:
    writer, reader = open_another(), open_another()
    writer.add([OUTCOME])
    cursor = reader.read(None).cursor
    unchanged = reader.read(cursor)
    assert (unchanged.landed, list(unchanged.outcomes)) == (None, [])
    later = replace(OUTCOME, key="k2")
    writer.add([OUTCOME, later])
    changes = reader.read(cursor)
    assert (changes.landed, changes.outcomes) == (None, [later])
    writer.land([sums("2026-01-01", 1)], oldest="")
    changes = reader.read(changes.cursor)
    assert changes.landed == [sums("2026-01-01", 1)]
    assert changes.outcomes == [OUTCOME, later], "after a landing a reader gets everything again"


def test_an_outcome_added_twice_counts_once(open_another: OpenStore) -> None:
    store = open_another()
    assert store.add([OUTCOME]) == 1
    assert store.add([OUTCOME, replace(OUTCOME, known_at=9)]) == 0
    assert store.read(None).outcomes == [OUTCOME]
    assert store.add([]) == 0


def test_older_data_never_replaces_newer(open_another: OpenStore) -> None:
    store = open_another()
    store.land([sums("2026-01-01", 5, b"new")], oldest="")
    assert store.land([sums("2026-01-01", 4, b"old"), sums("2026-01-01", 5, b"same")], oldest="") == 0
    assert [w.packed for w in store.read(None).landed or ()] == [b"new"]
    assert store.land([sums("2026-01-01", 6, b"newer")], oldest="") == 1
    assert [w.packed for w in store.read(None).landed or ()] == [b"newer"]


def test_what_is_older_than_the_oldest_window_needed_is_deleted(open_another: OpenStore) -> None:
    store, reader = open_another(), open_another()
    store.land([sums("2026-01-01", 1), sums("2026-01-03", 1)], oldest="")
    store.add([OUTCOME, replace(OUTCOME, key="k2", window="2026-01-04")])
    cursor = reader.read(None).cursor
    assert store.land([sums("2026-01-02", 9), sums("2026-01-05", 2)], oldest="2026-01-03") == 1
    changes = reader.read(cursor)
    assert sorted(w.window for w in changes.landed or ()) == ["2026-01-03", "2026-01-05"]
    assert [o.key for o in changes.outcomes] == ["k2"]


def test_writers_at_the_same_time_lose_nothing(open_another: OpenStore) -> None:
    stores = [open_another() for _ in range(4)]

    def write(n: int) -> None:
        for i in range(20):
            stores[n].add([replace(OUTCOME, key=f"{n}-{i}")])
            stores[n].land([sums(f"2026-02-{i + 1:02d}", n)], oldest="")

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    content = open_another().read(None)
    assert len(content.outcomes) == 80
    assert {w.version for w in content.landed or ()} == {3}


def test_several_writers_may_create_the_same_embedded_store_at_once(tmp_path: Path) -> None:
    """SQLite refuses all but one of those who change the same new file to WAL mode, without waiting."""
    with ThreadPoolExecutor(4) as writers:
        for n in range(100):
            stores, start = [open_store(str(tmp_path), f"m{n}") for _ in range(4)], Barrier(4)

            def write(i: int, stores: list[OnlineStore] = stores, start: Barrier = start) -> int:
                start.wait()
                return stores[i].add([replace(OUTCOME, key=f"{i}")])

            assert sum(writers.map(write, range(4))) == 4
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-wal", ".db-shm"}


def test_the_embedded_store_notices_at_once_that_another_has_written(tmp_path: Path) -> None:
    writer, reader = open_store(str(tmp_path), "m"), open_store(str(tmp_path), "m")
    reader.read(None)
    assert not reader.has_changed()
    writer.add([OUTCOME])
    assert reader.has_changed()
    reader.read(None)
    assert not reader.has_changed()


def test_a_store_that_cannot_be_reached_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        open_store(f"redis://127.0.0.1:{free_port()}/0", "m").read(None)
    (tmp_path / "m.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        open_store(str(tmp_path), "m").read(None)
    calls: list[Callable[[OnlineStore], object]] = [lambda store: store.has_changed(), lambda store: store.read(None)]
    for call in calls:
        with pytest.raises(Unavailable, match=r"m\.db/m\.db: File exists$"):
            call(open_store(str(tmp_path / "m.db"), "m"))
    with pytest.raises(UserMistake, match="a folder or redis"):
        open_store("ftp://somewhere", "m")


def test_outcomes_are_stored_under_the_keys_that_older_stores_hold() -> None:
    stored = '{"key":"k1","window":"2026-01-02","known":3600,"columns":{"who":"a","n":null},"values":{"late":1.0,"delay":null}}'
    assert encode_outcome(OUTCOME) == stored
    assert decode_outcome(stored) == OUTCOME


GROUP = AggregateGroup(by=("who",), over=(timedelta(hours=2),), mean=("late",), rows=True)
LANDED = LandedSums(
    "2026-01-02",
    1,
    7000,
    pack(
        {
            "who": HourlySums(
                ["a"],
                np.array([1]),
                np.array([7000]),
                *({"late": np.array([v])} for v in (2.0, 1.0, 1.0)),
            )
        }
    ),
)


def aggregates_at_hour_3(server: Lookups, who: str) -> list[float]:
    """Return the aggregates that the server looks up; the JSON for its log holds the same numbers as the packed ones."""
    [looked_up] = server.find([who], 3)
    numbers: list[float] = np.frombuffer(looked_up.packed, np.float32).tolist()
    logged = json.loads(b"{" + looked_up.json_fields + b"}", parse_constant=float)
    assert list(logged) == list(GROUP.features)
    np.testing.assert_allclose(np.array(list(logged.values()), np.float32), numbers)
    return numbers


def test_a_server_follows_what_is_written(open_another: OpenStore) -> None:
    """A landed window, outcomes that became known after it, and a later landing that contains them."""
    writer = open_another()
    server = Lookups(open_another(), Aggregates(groups=(GROUP,)), ["who"])
    later = replace(OUTCOME, known_at=7200, values={"late": 0.0})

    def aggregates_after(write: Callable[[], int]) -> list[float]:
        write()
        asyncio.run(server.poll())
        return aggregates_at_hour_3(server, "a")

    assert np.isnan(aggregates_at_hour_3(server, "a")[0])
    assert aggregates_after(lambda: writer.land([LANDED], oldest="")) == [0.5, 2]
    assert aggregates_after(lambda: writer.add([replace(later, key="landed already", known_at=6999)])) == [0.5, 2]
    assert aggregates_after(lambda: writer.add([later])) == pytest.approx([1 / 3, 3])
    assert b":0.33333334," in server.find(["a"], 3)[0].json_fields  # the digits that tell a float32 from the next
    assert aggregates_after(lambda: writer.land([replace(LANDED, version=2, known_until=7200)], oldest="")) == [0.5, 2]
    assert server.status().known_until == 7200
    assert aggregates_at_hour_3(server, "nobody")[1] == 0
    assert server.misses == {"who": 1}


def test_a_request_sees_what_was_written_to_the_embedded_store_before_it_came(tmp_path: Path) -> None:
    """It sees it without waiting for `poll`; the requests of one turn of the event loop share one look at the store."""
    writer = open_store(str(tmp_path), "m")
    writer.land([LANDED], oldest="")
    server = Lookups(open_store(str(tmp_path), "m"), Aggregates(groups=(GROUP,)), ["who"])

    async def ask() -> list[list[float]]:
        aggregates = []
        for n in range(3):
            await asyncio.sleep(0)
            server.refresh()
            aggregates.append(aggregates_at_hour_3(server, "a"))
            writer.add([replace(OUTCOME, key=f"k{n}", known_at=7200 + n, values={"late": 0.0})])
            server.refresh()
            assert aggregates_at_hour_3(server, "a") == aggregates[-1]
        return aggregates

    assert asyncio.run(ask()) == [[0.5, 2], pytest.approx([1 / 3, 3]), [0.25, 4]]


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
