"""A slot: the version it serves, the version it should serve, and why these differ."""

import asyncio
import ctypes
import gc
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import msgspec

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Corrupt, Unavailable
from include.server.batching import Batcher, QueueLimits
from include.server.lookups import Lookups, StoreStatus
from include.server.prometheus import LabelValues, Metrics
from include.server.score_cache import ScoreCache
from include.server.servable_model import LoadOptions, StoreFactory, VersionReference, load_model
from include.server.version_source import VersionSource

#: Seconds between two questions to the source, and before a version that did not load is tried again.
POLL_INTERVAL = 0.5
RETRY_INTERVAL = 5.0
#: New objects after which the garbage collector runs.
GC_THRESHOLD = 50_000

logger = logging.getLogger("perennial.server")


class LoadFailure(NamedTuple):
    """A version that did not load; `failed_at` is a time of time.monotonic."""

    version: VersionReference
    reason: str
    failed_at: float


class ArtifactStatus(msgspec.Struct):
    """Place and SHA-256 of the manifest that is served."""

    uri: str
    digest: str | None


class SlotStatus(msgspec.Struct, kw_only=True):
    """The body of `/status`; the fields of the model are None while none is served."""

    slot: str
    model: str
    version: str | None = None
    ready: bool
    reason: str | None
    wanted: str | None
    artifact: ArtifactStatus | None = None
    run: str | None = None
    family: str | None = None
    loaded_at: float | None = None
    load_seconds: float | None = None
    store: StoreStatus | None = None
    under_way: int


class Slot:
    """Follows its source. If the source names no version or does not answer, the slot keeps what it serves: a rollback is a
    change of the gateway's weights, so the other version must stay loaded whatever becomes of its alias.

    What it serves is written to `state_file`, so that a slot restarted while the registry is away serves it again.
    """

    def __init__(
        self,
        name: str,
        model: str,
        source: VersionSource,
        *,
        options: LoadOptions,
        queue: QueueLimits,
        cache_rows: int,
        metrics: Metrics,
        state_file: Path,
        open_store: StoreFactory | None = None,
    ) -> None:
        self.name, self.model = name, model
        self.batcher: Batcher | None = None
        self.draining = False
        self._source, self._options, self._metrics, self._state_file = source, options, metrics, state_file
        self._queue, self._cache_rows, self._open_store = queue, cache_rows, open_store
        self._wanted: VersionReference | None = None
        self._failure: LoadFailure | None = None
        self._source_error: str | None = "starting"
        self._memory_to_release = False
        self._register_gauges(metrics)

    def _register_gauges(self, metrics: Metrics) -> None:
        def register(name: str, help_text: str, read: Callable[[Batcher], float]) -> None:
            metrics.register_gauge(name, help_text, lambda: {(): read(self.batcher)} if self.batcher else {})

        register("perennial_queue_rows", "Rows that wait to be scored.", lambda b: b.depth)
        load_help = "Time to load, check and warm up the version served."
        register("perennial_model_load_seconds", load_help, lambda b: b.model.load_seconds)
        age_help = "Time since the version served was loaded."
        register("perennial_model_age_seconds", age_help, lambda b: time.time() - b.model.loaded_at)
        store_help = "Seconds since the online store was written."
        metrics.register_gauge("perennial_store_age_seconds", store_help, self._store_age)
        misses_help = "Rows whose entity the online store does not know, since a window landed last."
        metrics.register_gauge("perennial_store_misses", misses_help, self._store_misses, "group")

    async def follow(self) -> None:
        """Follow the source and the online store until cancelled."""
        while True:
            await self.update()
            if (lookups := self.lookups) is not None:
                await lookups.poll()
            await asyncio.sleep(POLL_INTERVAL)

    async def update(self) -> None:
        """Ask the source once and serve what it names."""
        if self._memory_to_release:
            self._memory_to_release = False
            await asyncio.to_thread(_release_memory)
        try:
            wanted, self._source_error = await asyncio.to_thread(self._source), None
            self._wanted = wanted
            if wanted is None:
                self._source_error = f"{self._source} names no version"
        except Unavailable as error:
            wanted, self._source_error = None, str(error)
        if wanted is None and self.batcher is None:
            wanted = self._saved_version()
        if wanted == self._served():
            self._failure = None
        elif wanted is not None and not self._failed_recently(wanted):
            await self._load(wanted)
            saved = self._saved_version() if self.batcher is None else None
            if saved is not None and saved != wanted:
                await self._load(saved, instead_of=self._failure)

    @property
    def lookups(self) -> Lookups | None:
        """The lookups of the version served, None if it uses no aggregates."""
        return None if self.batcher is None else self.batcher.model.rows.lookups

    @property
    def ready(self) -> bool:
        """Whether the slot serves a version and goes on doing so."""
        return self.batcher is not None and not self.draining

    @property
    def reason(self) -> str | None:
        """Why the slot does not serve what it should, None if it does."""
        if self.draining:
            return "shutting down"
        if self._failure is not None and self._failure.version != self._served():
            return f"version {self._failure.version.version} did not load: {self._failure.reason}"
        return self._source_error

    def status(self, in_flight: int) -> SlotStatus:
        """Return the body of `/status`, while that many requests are in flight."""
        status = SlotStatus(
            slot=self.name,
            model=self.model,
            ready=self.ready,
            reason=self.reason,
            wanted=self._wanted.version if self._wanted else None,
            under_way=in_flight,
        )
        if self.batcher is not None:
            model = self.batcher.model
            status.version = model.version
            status.artifact = ArtifactStatus(model.reference.uri, model.reference.digest)
            status.run, status.family = model.manifest.run, model.manifest.family
            status.loaded_at, status.load_seconds = model.loaded_at, model.load_seconds
            status.store = self.lookups.status() if self.lookups else None
        return status

    async def _load(self, version: VersionReference, instead_of: LoadFailure | None = None) -> None:
        """Load a version and serve it; `instead_of` is the failure of the version for which it stands in."""
        try:
            model = await asyncio.to_thread(load_model, version, self._options, self._open_store, self.lookups)
        except (Corrupt, Unavailable) as error:
            self._failure = instead_of or LoadFailure(version, str(error), time.monotonic())
            self._metrics.loads.inc(("failed",))
            logger.warning("version %s did not load: %s", version.version, error)
            return
        if self.batcher is None:
            # What is loaded by now stays, so the collector need not visit it under load. Nor need it run each few hundred
            # objects, because requests leave no circles; those of a version that goes are collected when it is replaced.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
        self._memory_to_release = self.batcher is not None
        # From here new requests meet the new version; those in flight end on the old one's batcher.
        cache = ScoreCache(self._cache_rows, self._metrics.cache_requests) if self._cache_rows else None
        self.batcher = Batcher(model, self._queue, self._metrics.batch_rows.observe, cache)
        self._failure = instead_of
        self._metrics.loads.inc(("loaded",))
        logger.info("serving version %s, loaded in %.2f s", model.version, model.load_seconds)
        await asyncio.to_thread(self._save_version, version)

    def _served(self) -> VersionReference | None:
        return None if self.batcher is None else self.batcher.model.reference

    def _failed_recently(self, version: VersionReference) -> bool:
        failure = self._failure
        if failure is None or failure.version != version:
            return False
        return time.monotonic() - failure.failed_at < RETRY_INTERVAL

    def _store_age(self) -> dict[LabelValues, float]:
        written_at = self.lookups and self.lookups.written_at
        return {(): time.time() - written_at} if written_at else {}

    def _store_misses(self) -> dict[LabelValues, float]:
        return {(group,): count for group, count in self.lookups.misses.items()} if self.lookups else {}

    def _save_version(self, version: VersionReference) -> None:
        """Write the state file, which the slot's other servers write too."""
        try:
            write_atomically(self._state_file, json.dumps(asdict(version)))
        except OSError as error:
            logger.warning("cannot remember the version served: %s", error)

    def _saved_version(self) -> VersionReference | None:
        try:
            return VersionReference(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s: cannot be read: %s", self._state_file, error)
            return None


def _release_memory() -> None:
    """Give the memory of a replaced version back to the system: the allocator keeps it otherwise, and more with each swap."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)
