"""The queue before a model, with a real model."""

import asyncio
import time

import pytest

from include.server.batching import Batcher, QueueLimits
from include.server.prometheus import Counter
from include.server.responses import RequestError
from include.server.rows import EncodedRow
from include.server.score_cache import ScoreCache
from include.server.servable_model import LoadOptions, ServableModel, VersionReference, load_model
from tests.serving import rows, write_artifact


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServableModel:
    uri = write_artifact(tmp_path_factory.mktemp("m") / "run")["artifact_uri"]
    return load_model(VersionReference("1", uri, None), LoadOptions())


@pytest.fixture
def encoded(model: ServableModel) -> list[EncodedRow]:
    return [model.rows.encode_example(row) for row in rows(600)]


def one_by_one(model: ServableModel, encoded: list[EncodedRow]) -> list[float]:
    return [model.score([row])[0] for row in encoded]


def submit(batcher: Batcher, part: list[EncodedRow], started_at: float | None = None) -> asyncio.Future[list[float]]:
    """Return the future scores, or the error in their place."""
    future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def on_scores(scores: list[float] | Exception) -> None:
        future.set_result(scores) if isinstance(scores, list) else future.set_exception(scores)

    batcher.submit(part, time.perf_counter() if started_at is None else started_at, on_scores)
    return future


def test_requests_of_one_turn_are_scored_in_few_inferences_and_each_gets_its_own(
    model: ServableModel, encoded: list[EncodedRow]
) -> None:
    sizes: list[int] = []

    async def run() -> list[list[float]]:
        batcher = Batcher(model, QueueLimits(), sizes.append)
        parts = [encoded[i : i + 3] for i in range(0, 600, 3)]
        return await asyncio.gather(*(submit(batcher, part) for part in parts))

    scores = [score for part in asyncio.run(run()) for score in part]
    assert scores == pytest.approx(one_by_one(model, encoded), abs=1e-6)
    assert (sum(sizes), len(sizes), max(sizes)) == (600, 10, 66)


def test_a_response_that_cannot_be_written_keeps_no_other_from_being(
    model: ServableModel, encoded: list[EncodedRow]
) -> None:
    def fail(_: list[float] | Exception) -> None:
        raise ValueError("no one listens")

    async def run() -> list[float]:
        batcher = Batcher(model, QueueLimits(), lambda _: None)
        batcher.submit(encoded[:1], time.perf_counter(), fail)
        return await submit(batcher, encoded[1:2])

    assert asyncio.run(run()) == pytest.approx(one_by_one(model, encoded[1:2]), abs=1e-6)


def test_more_rows_than_may_wait_and_rows_that_waited_too_long_are_refused(
    model: ServableModel, encoded: list[EncodedRow]
) -> None:
    async def run() -> None:
        batcher = Batcher(model, QueueLimits(max_rows=2, max_seconds=5), lambda _: None)
        late = submit(batcher, encoded[:1], time.perf_counter() - 6)
        timely = submit(batcher, encoded[:1])
        assert batcher.depth == 2
        with pytest.raises(RequestError, match="2 rows wait") as full:
            submit(batcher, encoded[:1])
        assert len(await timely) == 1
        with pytest.raises(RequestError, match="not scored within 5 s") as too_late:
            await late
        assert (full.value.status, too_late.value.status, batcher.depth) == (503, 503, 0)

    asyncio.run(run())


def test_the_cache_answers_alike_without_the_model_and_drops_the_rows_used_least_recently(
    model: ServableModel, encoded: list[EncodedRow]
) -> None:
    sizes: list[int] = []
    outcomes = Counter("n", "", "outcome")
    distinct = list({(row.ids, row.numbers): row for row in encoded}.values())[:4]

    async def run() -> None:
        batcher = Batcher(model, QueueLimits(), sizes.append, ScoreCache(3, outcomes))

        async def scores(*indices: int) -> list[float]:
            return await submit(batcher, [distinct[i] for i in indices])

        assert await scores(0, 1) + await scores(0, 1) == pytest.approx(2 * one_by_one(model, distinct[:2]), abs=1e-6)
        await scores(2)
        await scores(0)  # used again, so 1 was used least recently
        await scores(3)
        await scores(0)
        await scores(1)

    asyncio.run(run())
    assert sizes == [2, 1, 1, 1]
    assert dict(outcomes.values) == {("hit",): 3, ("miss",): 4}
