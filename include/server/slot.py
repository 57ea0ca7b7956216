"""A slot: the version it serves, the version it should serve, and why these differ."""

import asyncio
import ctypes
import gc
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from include.domain.errors import Corrupt, Unavailable
from include.server.batching import Batcher, Queue
from include.server.cache import Cache
from include.server.lookups import Lookups
from include.server.metrics import Labels, Metrics
from include.server.model import Limits, Named, Open, load

#: Seconds between looks at the source, and before a version that did not load is tried again.
EVERY = 0.5
TRY_AGAIN = 5.0
#: New objects that wait for the collector to look at them.
GARBAGE = 50_000

Failure = tuple[Named, str, float]
Source = Callable[[], Named | None]
logger = logging.getLogger("perennial.server")


class Slot:
    """Follows its source. Without a version there, or without an answer, it keeps what it has: a rollback is a change
    of the gateway's weights, so the other version must stay loaded whatever becomes of its alias.

    What it serves is remembered in `memory`, so that a slot restarted while the registry is away serves it again.
    """

    def __init__(
        self, name: str, model: str, source: Source, *, limits: Limits, queue: Queue, cached: int,
        metrics: Metrics, memory: Path, open_store: Open = None,
    ) -> None:  # fmt: skip
        self.name, self.model = name, model
        self.serving: Batcher | None = None
        self._source, self._limits, self._metrics, self._memory = source, limits, metrics, memory
        self._queue, self._cached = queue, cached
        self._open_store = open_store
        self._wanted: Named | None = None
        self._failed: Failure | None = None
        self._fault: str | None = "starting"
        self.draining = False
        self._replaced = False
        metrics.gauge("perennial_queue_rows", "Rows that wait to be scored.", lambda: self._gauge(lambda b: b.depth))
        metrics.gauge("perennial_model_load_seconds", "Time to load, check and warm up the version served.",
                      lambda: self._gauge(lambda b: b.model.load_seconds))  # fmt: skip
        metrics.gauge("perennial_model_age_seconds", "Time since the version served was loaded.",
                      lambda: self._gauge(lambda b: time.time() - b.model.loaded_at))  # fmt: skip
        metrics.gauge("perennial_store_age_seconds", "Seconds since the online store was written.", self._age)
        metrics.gauge("perennial_store_misses", "Rows whose entity the online store does not know, since a window "
                      "landed last.", self._misses, "group")  # fmt: skip

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self.look()
            if (lookups := self.lookups) is not None:
                await lookups.follow()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Ask the source once and serve what it names."""
        if self._replaced:
            self._replaced = False
            await asyncio.to_thread(_give_back)
        try:
            wanted, self._fault = await asyncio.to_thread(self._source), None
            self._wanted = wanted
            if wanted is None:
                self._fault = f"{self._source} names no version"
        except Unavailable as fault:
            wanted, self._fault = None, str(fault)
        if wanted is None and self.serving is None:
            wanted = self._remembered()
        if wanted == self._current():
            self._failed = None
        elif wanted is not None and not self._failed_lately(wanted):
            await self._take(wanted)
            last = self._remembered() if self.serving is None else None
            if last is not None and last != wanted:
                await self._take(last, failed=self._failed)

    @property
    def lookups(self) -> Lookups | None:
        return None if self.serving is None else self.serving.model.rows.lookups

    @property
    def ready(self) -> bool:
        return self.serving is not None and not self.draining

    @property
    def reason(self) -> str | None:
        """Why the slot does not serve what it should, None when it does."""
        if self.draining:
            return "shutting down"
        if self._failed is not None and self._failed[0] != self._current():
            return f"version {self._failed[0].version} did not load: {self._failed[1]}"
        return self._fault

    def status(self) -> dict[str, Any]:
        model = None if self.serving is None else self.serving.model
        return {
            "slot": self.name, "model": self.model, "version": model and model.version, "ready": self.ready,
            "reason": self.reason, "wanted": self._wanted and self._wanted.version,
            "artifact": model and {"uri": model.named.uri, "digest": model.named.digest},
            "run": model and model.manifest.get("run"), "family": model and model.manifest.get("family"),
            "loaded_at": model and model.loaded_at, "load_seconds": model and model.load_seconds,
            "store": self.lookups and self.lookups.status(),
        }  # fmt: skip

    async def _take(self, named: Named, failed: Failure | None = None) -> None:
        """Load it and serve it; `failed` is what this one stands in for."""
        try:
            model = await asyncio.to_thread(load, named, self._limits, self._open_store, self.lookups)
        except (Corrupt, Unavailable) as fault:
            self._failed = failed or (named, str(fault), time.monotonic())
            self._metrics.loads.add(("failed",))
            logger.warning("version %s did not load: %s", named.version, fault)
            return
        if self.serving is None:
            # What is loaded by now stays, so the collector need not visit it under load; nor each few hundred objects of
            # requests, which hold no circles: those of a version that goes are collected when it is replaced.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
        self._replaced = self.serving is not None
        # From here new requests meet the new version; those under way end on the old one's batcher.
        cache = Cache(self._cached, self._metrics.cache) if self._cached else None
        self.serving, self._failed = Batcher(model, self._queue, self._metrics.batch.observe, cache), failed
        self._metrics.loads.add(("loaded",))
        logger.info("serving version %s, loaded in %.2f s", model.version, model.load_seconds)
        self._remember(named)

    def _gauge(self, read: Callable[[Batcher], float]) -> dict[tuple[str, ...], float]:
        return {} if self.serving is None else {(): read(self.serving)}

    def _current(self) -> Named | None:
        return None if self.serving is None else self.serving.model.named

    def _failed_lately(self, named: Named) -> bool:
        failed = self._failed
        return failed is not None and failed[0] == named and time.monotonic() - failed[2] < TRY_AGAIN

    def _age(self) -> dict[Labels, float]:
        written = self.lookups and self.lookups.written
        return {(): time.time() - written} if written else {}

    def _misses(self) -> dict[Labels, float]:
        return {(group,): count for group, count in self.lookups.misses.items()} if self.lookups else {}

    def _remember(self, named: Named) -> None:
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            draft = self._memory.with_suffix(f".{os.getpid()}.draft")  # the slot may have other servers
            draft.write_text(json.dumps(asdict(named)), encoding="utf-8")
            draft.replace(self._memory)
        except OSError as fault:
            logger.warning("cannot remember the version served: %s", fault)

    def _remembered(self) -> Named | None:
        try:
            return Named(**json.loads(self._memory.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as fault:
            logger.warning("%s: cannot be read: %s", self._memory, fault)
            return None


def _give_back() -> None:
    """Hand the memory of the version before to the system: the allocator keeps it otherwise, and more with each swap."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)
