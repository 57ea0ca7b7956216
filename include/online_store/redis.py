"""The online store in Redis, for servers on several machines: the sums in a hash by window, the outcomes in a list."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis

from include.domain.errors import Unavailable
from include.domain.features.online_features import EventOutcome, LandedSums
from include.online_store.protocol import StoreChanges, decode_outcome, encode_outcome

#: Seconds to wait for a connection, and for a reply.
CONNECT_TIMEOUT, REPLY_TIMEOUT = 2.0, 10.0


class RedisStore:
    """An OnlineStore in five Redis keys of the model; each write is one transaction."""

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT, socket_timeout=REPLY_TIMEOUT)
        prefix = f"perennial:{model}"
        self._landed, self._outcomes, self._outcome_keys = f"{prefix}:landed", f"{prefix}:outcomes", f"{prefix}:keys"
        self._landings, self._written_at = f"{prefix}:landings", f"{prefix}:at"

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        """Replace windows and delete old ones; see OnlineStore."""

        def transaction(pipe: Any) -> int:
            versions = {name.decode(): _decode_sums(name, v).version for name, v in pipe.hgetall(self._landed).items()}
            outcomes = pipe.lrange(self._outcomes, 0, -1)
            current_outcomes = [text for text in outcomes if decode_outcome(text).window >= oldest]
            newer = [w for w in windows if w.window >= oldest and w.version > versions.get(w.window, -1)]
            pipe.multi()
            if expired := [name for name in versions if name < oldest]:
                pipe.hdel(self._landed, *expired)
            if newer:
                pipe.hset(self._landed, mapping={w.window: _encode_sums(w) for w in newer})
            if len(current_outcomes) < len(outcomes):
                self._replace_outcomes(pipe, current_outcomes)
            if newer or len(current_outcomes) < len(outcomes):
                pipe.incr(self._landings)
                pipe.set(self._written_at, time.time())
            return len(newer)

        return self._run_transaction(transaction, self._landed, self._outcomes)

    def add(self, outcomes: Sequence[EventOutcome]) -> int:
        """Append new outcomes; see OnlineStore."""

        def transaction(pipe: Any) -> int:
            is_stored = pipe.smismember(self._outcome_keys, [o.key for o in outcomes])
            new = {o.key: o for o, stored in zip(outcomes, is_stored, strict=True) if not stored}
            pipe.multi()
            if new:
                pipe.rpush(self._outcomes, *(encode_outcome(o) for o in new.values()))
                pipe.sadd(self._outcome_keys, *new)
                pipe.set(self._written_at, time.time())
            return len(new)

        return self._run_transaction(transaction, self._outcomes, self._outcome_keys) if outcomes else 0

    def has_changed(self) -> bool:
        """Return False: to know better would take a question over the network."""
        return False

    def read(self, cursor: tuple[int, int] | None) -> StoreChanges:
        """Return what was written after `cursor`, which holds the number of landings and of outcomes; see OnlineStore."""
        with self._errors_as_unavailable():
            start = cursor[1] if cursor is not None else 0
            landings, written_at, texts = self._snapshot(lambda pipe: pipe.lrange(self._outcomes, start, -1))
            if cursor is not None and cursor[0] == landings:
                outcomes = [decode_outcome(text) for text in texts]
                return StoreChanges((landings, start + len(texts)), None, outcomes, written_at)
            landings, written_at, texts, sums = self._snapshot(
                lambda pipe: pipe.lrange(self._outcomes, 0, -1).hgetall(self._landed)
            )
        landed = [_decode_sums(name, value) for name, value in sums.items()]
        return StoreChanges((landings, len(texts)), landed, [decode_outcome(text) for text in texts], written_at)

    def _snapshot(self, queue_commands: Callable[[Any], Any]) -> tuple[Any, ...]:
        """Return the number of landings, the time of the last write and the replies to more commands, all of one moment."""
        pipe = self._client.pipeline(transaction=True)
        pipe.get(self._landings)
        pipe.get(self._written_at)
        queue_commands(pipe)
        landings, written_at, *replies = pipe.execute()
        return (int(landings or 0), None if written_at is None else float(written_at), *replies)

    def _replace_outcomes(self, pipe: Any, texts: Sequence[bytes]) -> None:
        pipe.delete(self._outcomes, self._outcome_keys)
        if texts:
            pipe.rpush(self._outcomes, *texts)
            pipe.sadd(self._outcome_keys, *(decode_outcome(text).key for text in texts))

    def _run_transaction(self, transaction: Callable[[Any], int], *watched_keys: str) -> int:
        """Run it, and run it again as long as another client writes one of the watched keys meanwhile."""
        with self._errors_as_unavailable():
            return cast(int, self._client.transaction(cast(Any, transaction), *watched_keys, value_from_callable=True))

    @contextmanager
    def _errors_as_unavailable(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"the online store {self._url} does not answer: {error}") from None


def _encode_sums(sums: LandedSums) -> bytes:
    return json.dumps([sums.version, sums.known_until]).encode() + b"\n" + sums.packed


def _decode_sums(window: bytes, stored: bytes) -> LandedSums:
    head, _, packed = stored.partition(b"\n")
    version, until = json.loads(head)
    return LandedSums(window.decode(), version, until, packed)
