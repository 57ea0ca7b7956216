"""The online store in Redis, for servers on several machines: the sums in a hash by window, the outcomes in a list."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis

from include.domain.errors import Unavailable
from include.domain.features.online_features import LandedSums, Outcome
from include.online_store.coding import decode, encode
from include.online_store.store import News

#: Seconds to wait for a connection, and for an answer.
CONNECT, ANSWER = 2.0, 10.0


class RedisStore:
    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT, socket_timeout=ANSWER)
        names = ("landed", "outcomes", "keys", "landings", "at")
        self._landed, self._outcomes, self._keys, self._landings, self._at = (f"perennial:{model}:{n}" for n in names)

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        def put(pipe: Any) -> int:
            there = {name.decode(): _sums(name, value).version for name, value in pipe.hgetall(self._landed).items()}
            told = pipe.lrange(self._outcomes, 0, -1)
            kept = [said for said in told if decode(said).window >= oldest]
            new = [w for w in windows if w.window >= oldest and w.version > there.get(w.window, -1)]
            pipe.multi()
            if gone := [name for name in there if name < oldest]:
                pipe.hdel(self._landed, *gone)
            if new:
                pipe.hset(self._landed, mapping={w.window: _stored(w) for w in new})
            if len(kept) < len(told):
                self._refill(pipe, kept)
            if new or len(kept) < len(told):
                pipe.incr(self._landings)
                pipe.set(self._at, time.time())
            return len(new)

        return self._transaction(put, self._landed, self._outcomes)

    def add(self, outcomes: Sequence[Outcome]) -> int:
        def put(pipe: Any) -> int:
            known = pipe.smismember(self._keys, [o.key for o in outcomes])
            new = {o.key: o for o, there in zip(outcomes, known, strict=True) if not there}
            pipe.multi()
            if new:
                pipe.rpush(self._outcomes, *(encode(o) for o in new.values()))
                pipe.sadd(self._keys, *new)
                pipe.set(self._at, time.time())
            return len(new)

        return self._transaction(put, self._outcomes, self._keys) if outcomes else 0

    def changed(self) -> bool:
        """Nobody knows without asking over the network."""
        return False

    def read(self, since: tuple[int, int] | None) -> News:
        with self._answering():
            after = since[1] if since is not None else 0
            landings, at, told = self._asked(lambda pipe: pipe.lrange(self._outcomes, after, -1))
            if since is not None and since[0] == landings:
                return News((landings, after + len(told)), None, [decode(said) for said in told], at)
            landings, at, told, held = self._asked(
                lambda pipe: pipe.lrange(self._outcomes, 0, -1).hgetall(self._landed)
            )
        landed = [_sums(name, value) for name, value in held.items()]
        return News((landings, len(told)), landed, [decode(said) for said in told], at)

    def _asked(self, more: Callable[[Any], Any]) -> tuple[Any, ...]:
        """The number of landings, the moment of the last write, and what `more` asks, all of one moment."""
        pipe = self._client.pipeline(transaction=True)
        pipe.get(self._landings)
        pipe.get(self._at)
        more(pipe)
        landings, at, *rest = pipe.execute()
        return (int(landings or 0), None if at is None else float(at), *rest)

    def _refill(self, pipe: Any, kept: Sequence[bytes]) -> None:
        pipe.delete(self._outcomes, self._keys)
        if kept:
            pipe.rpush(self._outcomes, *kept)
            pipe.sadd(self._keys, *(decode(said).key for said in kept))

    def _transaction(self, put: Callable[[Any], int], *watched: str) -> int:
        """Tried again when somebody else wrote what it watches."""
        with self._answering():
            return cast(int, self._client.transaction(cast(Any, put), *watched, value_from_callable=True))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as fault:
            raise Unavailable(f"the online store {self._url} does not answer: {fault}") from None


def _stored(sums: LandedSums) -> bytes:
    return json.dumps([sums.version, sums.until]).encode() + b"\n" + sums.packed


def _sums(window: bytes, stored: bytes) -> LandedSums:
    head, _, packed = stored.partition(b"\n")
    version, until = json.loads(head)
    return LandedSums(window.decode(), version, until, packed)
