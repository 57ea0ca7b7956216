"""The online stores: what both promise to the DAG that lands, the stream that tells, and the servers that read."""

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
from include.domain.features.aggregates import Aggregates, Group
from include.domain.features.hourly_sums import Sums, pack
from include.domain.features.online_features import LandedSums, Outcome
from include.online_store.store import OnlineStore, open_store
from include.server.lookups import Lookups
from tests.serving import await_, free_port

Open = Callable[[], OnlineStore]
OUTCOME = Outcome("k1", "2026-01-02", 3600, {"who": "a", "n": None}, {"late": 1.0, "delay": None})


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
        await_(lambda: _answers(client), "Redis to answer")
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(params=["embedded", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a fresh model's store as often as asked: each is another process's."""
    url = str(tmp_path) if request.param == "embedded" else request.getfixturevalue("redis_url")
    return lambda: open_store(url, tmp_path.name)


def test_what_one_writes_another_reads_whole(opened: Open) -> None:
    writer, reader = opened(), opened()
    assert reader.read(None).at is None
    assert writer.land([sums("2026-01-01", 3), sums("2026-01-02", 3)], oldest="") == 2
    assert writer.add([OUTCOME]) == 1
    news = reader.read(None)
    assert sorted(news.landed or [], key=lambda w: w.window) == [sums("2026-01-01", 3), sums("2026-01-02", 3)]
    assert news.outcomes == [OUTCOME]
    assert news.at is not None


def test_who_read_before_gets_what_is_new(opened: Open) -> None:
    writer, reader = opened(), opened()
    writer.add([OUTCOME])
    mark = reader.read(None).mark
    again = reader.read(mark)
    assert (again.landed, list(again.outcomes)) == (None, [])
    later = replace(OUTCOME, key="k2")
    writer.add([OUTCOME, later])
    news = reader.read(mark)
    assert (news.landed, news.outcomes) == (None, [later])
    writer.land([sums("2026-01-01", 1)], oldest="")
    news = reader.read(news.mark)
    assert news.landed == [sums("2026-01-01", 1)]
    assert news.outcomes == [OUTCOME, later], "after a landing everything is told again"


def test_an_outcome_told_twice_counts_once(opened: Open) -> None:
    store = opened()
    assert store.add([OUTCOME]) == 1
    assert store.add([OUTCOME, replace(OUTCOME, known=9)]) == 0
    assert store.read(None).outcomes == [OUTCOME]
    assert store.add([]) == 0


def test_older_data_never_replaces_newer(opened: Open) -> None:
    store = opened()
    store.land([sums("2026-01-01", 5, b"new")], oldest="")
    assert store.land([sums("2026-01-01", 4, b"old"), sums("2026-01-01", 5, b"same")], oldest="") == 0
    assert [w.packed for w in store.read(None).landed or ()] == [b"new"]
    assert store.land([sums("2026-01-01", 6, b"newer")], oldest="") == 1
    assert [w.packed for w in store.read(None).landed or ()] == [b"newer"]


def test_what_nobody_can_see_any_more_goes(opened: Open) -> None:
    store, reader = opened(), opened()
    store.land([sums("2026-01-01", 1), sums("2026-01-03", 1)], oldest="")
    store.add([OUTCOME, replace(OUTCOME, key="k2", window="2026-01-04")])
    mark = reader.read(None).mark
    assert store.land([sums("2026-01-02", 9), sums("2026-01-05", 2)], oldest="2026-01-03") == 1
    news = reader.read(mark)
    assert sorted(w.window for w in news.landed or ()) == ["2026-01-03", "2026-01-05"]
    assert [o.key for o in news.outcomes] == ["k2"]


def test_writers_at_the_same_time_lose_nothing(opened: Open) -> None:
    stores = [opened() for _ in range(4)]

    def write(n: int) -> None:
        for i in range(20):
            stores[n].add([replace(OUTCOME, key=f"{n}-{i}")])
            stores[n].land([sums(f"2026-02-{i + 1:02d}", n)], oldest="")

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    news = opened().read(None)
    assert len(news.outcomes) == 80
    assert {w.version for w in news.landed or ()} == {3}


def test_an_embedded_one_may_be_new_to_several_at_once(tmp_path: Path) -> None:
    """A file that stands there before it is in WAL mode is locked to all but one of those who change it to that."""
    with ThreadPoolExecutor(4) as writers:
        for n in range(100):
            stores, start = [open_store(str(tmp_path), f"m{n}") for _ in range(4)], Barrier(4)

            def write(i: int, stores: list[OnlineStore] = stores, start: Barrier = start) -> int:
                start.wait()
                return stores[i].add([replace(OUTCOME, key=f"{i}")])

            assert sum(writers.map(write, range(4))) == 4
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-wal", ".db-shm"}


def test_the_embedded_one_knows_at_once_that_something_was_written(tmp_path: Path) -> None:
    writer, reader = open_store(str(tmp_path), "m"), open_store(str(tmp_path), "m")
    reader.read(None)
    assert not reader.changed()
    writer.add([OUTCOME])
    assert reader.changed()
    reader.read(None)
    assert not reader.changed()


def test_a_store_that_cannot_be_reached_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        open_store(f"redis://127.0.0.1:{free_port()}/0", "m").read(None)
    (tmp_path / "m.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        open_store(str(tmp_path), "m").read(None)
    for ask in (lambda store: store.changed(), lambda store: store.read(None)):
        with pytest.raises(Unavailable, match=r"m\.db/m\.db: File exists$"):
            ask(open_store(str(tmp_path / "m.db"), "m"))
    with pytest.raises(UserMistake, match="a folder or redis"):
        open_store("ftp://somewhere", "m")


GROUP = Group(by=("who",), over=(timedelta(hours=2),), mean=("late",), rows=True)
SEEN = LandedSums("2026-01-02", 1, 7000, pack({"who": Sums(
    ["a"], np.array([1]), np.array([7000]), *({"late": np.array([v])} for v in (2.0, 1.0, 1.0)),
)}))  # fmt: skip


def found(server: Lookups, who: str) -> list[float]:
    """What it knows of who as of hour 3; the log's JSON says the same as the packed numbers."""
    [of] = server.find([who], 3)
    numbers = np.frombuffer(of.packed, np.float32).tolist()
    said = json.loads(b"{" + of.text + b"}", parse_constant=float)
    assert list(said) == list(GROUP.features)
    np.testing.assert_allclose(np.array(list(said.values()), np.float32), numbers)
    return numbers


def test_a_server_follows_what_is_written(opened: Open) -> None:
    """Landed sums, outcomes that became known later, and a landing that takes their place."""
    writer = opened()
    server = Lookups(opened(), Aggregates(groups=(GROUP,)), ["who"])
    later = replace(OUTCOME, known=7200, values={"late": 0.0})

    def known_after(write: Callable[[], int]) -> list[float]:
        write()
        asyncio.run(server.follow())
        return found(server, "a")

    assert np.isnan(found(server, "a")[0])
    assert known_after(lambda: writer.land([SEEN], oldest="")) == [0.5, 2]
    assert known_after(lambda: writer.add([replace(later, key="told already", known=6999)])) == [0.5, 2]
    assert known_after(lambda: writer.add([later])) == pytest.approx([1 / 3, 3])
    assert b":0.33333334," in server.find(["a"], 3)[0].text  # the digits that tell a float32 from the next
    assert known_after(lambda: writer.land([replace(SEEN, version=2, until=7200)], oldest="")) == [0.5, 2]
    assert server.status()["known_until"] == 7200
    assert found(server, "nobody")[1] == 0
    assert server.misses == {"who": 1}


def test_a_request_sees_what_was_written_to_the_embedded_one_before_it_came(tmp_path: Path) -> None:
    """Without waiting for the server to follow; the requests of one turn of its loop look once."""
    writer = open_store(str(tmp_path), "m")
    writer.land([SEEN], oldest="")
    server = Lookups(open_store(str(tmp_path), "m"), Aggregates(groups=(GROUP,)), ["who"])

    async def asked() -> list[list[float]]:
        seen = []
        for n in range(3):
            await asyncio.sleep(0)
            server.look()
            seen.append(found(server, "a"))
            writer.add([replace(OUTCOME, key=f"k{n}", known=7200 + n, values={"late": 0.0})])
            server.look()
            assert found(server, "a") == seen[-1]
        return seen

    assert asyncio.run(asked()) == [[0.5, 2], pytest.approx([1 / 3, 3]), [0.25, 4]]


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
