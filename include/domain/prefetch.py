"""Work done in threads ahead of its use. What making an item raises may come before the results of those under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
#: Calls under way at once, besides those that make the items and use the results.
WORKERS = 2


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items; while one is used a thread makes the next."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


def map_ahead(function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield `function(item)` of each item, in order; while one result is used threads compute the next ones."""
    with ThreadPoolExecutor(WORKERS) as threads:
        upcoming: deque[Future[U]] = deque()
        for item in items:
            upcoming.append(threads.submit(function, item))
            if len(upcoming) > WORKERS:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()
