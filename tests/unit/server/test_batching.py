"""The queue before the model, on a real one."""

import asyncio
import time

import pytest

from include.server.answers import Refused
from include.server.batching import Batcher, Queue
from include.server.cache import Cache
from include.server.metrics import Counter
from include.server.model import Limits, Model, Named, load
from include.server.rows import Encoded
from tests.serving import rows, write_artifact


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(Named("1", write_artifact(tmp_path_factory.mktemp("m") / "run")["artifact_uri"], None), Limits())


@pytest.fixture
def encoded(model: Model) -> list[Encoded]:
    return [model.rows.example(row) for row in rows(600)]


def one_by_one(model: Model, encoded: list[Encoded]) -> list[float]:
    return [model.score([row])[0] for row in encoded]


def ask(batcher: Batcher, part: list[Encoded], since: float | None = None) -> asyncio.Future[list[float]]:
    """The scores, or why there are none."""
    answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def done(scores: list[float] | Exception) -> None:
        answer.set_result(scores) if isinstance(scores, list) else answer.set_exception(scores)

    batcher.submit(part, time.perf_counter() if since is None else since, done)
    return answer


def test_requests_of_one_turn_are_scored_in_few_inferences_and_each_gets_its_own(
    model: Model, encoded: list[Encoded]
) -> None:
    sizes: list[int] = []

    async def run() -> list[list[float]]:
        batcher = Batcher(model, Queue(), sizes.append)
        parts = [encoded[i : i + 3] for i in range(0, 600, 3)]
        return await asyncio.gather(*(ask(batcher, part) for part in parts))

    found = [score for part in asyncio.run(run()) for score in part]
    assert found == pytest.approx(one_by_one(model, encoded), abs=1e-6)
    assert (sum(sizes), len(sizes), max(sizes)) == (600, 10, 66)


def test_an_answer_that_cannot_be_given_keeps_no_other_from_being(model: Model, encoded: list[Encoded]) -> None:
    def broken(_: list[float] | Exception) -> None:
        raise ValueError("no one listens")

    async def run() -> list[float]:
        batcher = Batcher(model, Queue(), lambda _: None)
        batcher.submit(encoded[:1], time.perf_counter(), broken)
        return await ask(batcher, encoded[1:2])

    assert asyncio.run(run()) == pytest.approx(one_by_one(model, encoded[1:2]), abs=1e-6)


def test_more_rows_than_may_wait_and_rows_that_waited_too_long_are_refused(
    model: Model, encoded: list[Encoded]
) -> None:
    async def run() -> None:
        batcher = Batcher(model, Queue(rows=2, seconds=5), lambda _: None)
        late = ask(batcher, encoded[:1], time.perf_counter() - 6)
        timely = ask(batcher, encoded[:1])
        assert batcher.depth == 2
        with pytest.raises(Refused, match="2 rows wait") as full:
            ask(batcher, encoded[:1])
        assert len(await timely) == 1
        with pytest.raises(Refused, match="not scored within 5 s") as refused:
            await late
        assert (full.value.status, refused.value.status, batcher.depth) == (503, 503, 0)

    asyncio.run(run())


def test_the_cache_answers_alike_without_the_model_and_forgets_the_rows_used_least(
    model: Model, encoded: list[Encoded]
) -> None:
    sizes: list[int] = []
    outcomes = Counter("n", "", "outcome")
    distinct = list({(row.ids, row.numbers): row for row in encoded}.values())[:4]

    async def run() -> None:
        batcher = Batcher(model, Queue(), sizes.append, Cache(3, outcomes))

        async def scores(*places: int) -> list[float]:
            return await ask(batcher, [distinct[i] for i in places])

        assert await scores(0, 1) + await scores(0, 1) == pytest.approx(2 * one_by_one(model, distinct[:2]), abs=1e-6)
        await scores(2)
        await scores(0)  # used again, so 1 is what was used least
        await scores(3)
        await scores(0)
        await scores(1)

    asyncio.run(run())
    assert sizes == [2, 1, 1, 1]
    assert dict(outcomes.values) == {("hit",): 3, ("miss",): 4}
