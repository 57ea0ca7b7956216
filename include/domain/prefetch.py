"""Work done in threads ahead of its use. What making an item raises may come before the results of those under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
#: Pieces of work under way at once, besides those that read them and use them.
AT_ONCE = 2


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items; while one is used a thread makes the next."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def side_by_side(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """What the work makes of each, in their order; while one result is used threads make the next ones."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        coming: deque[Future[U]] = deque()
        for item in items:
            coming.append(threads.submit(work, item))
            if len(coming) > AT_ONCE:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
