"""What HTTP and gRPC share: a request is admitted, its rows are scored and logged, its response is counted."""

import asyncio
import secrets
import time
import zlib
from dataclasses import dataclass
from itertools import count

from include.server.batching import Batcher, OnScores
from include.server.prediction_log import PredictionWriter, ScoredRow
from include.server.prometheus import Metrics
from include.server.responses import RequestError
from include.server.rows import EncodedRow
from include.server.servable_model import ServableModel
from include.server.slot import Slot


@dataclass(frozen=True)
class RequestLimits:
    """Bytes and rows of a request, seconds to send its body, requests in flight; and the token that POST requests must bear."""

    max_body_bytes: int = 1 << 20
    max_in_flight: int = 1024
    body_timeout: float = 5.0
    max_rows: int = 1024
    token: str | None = None


class ScoringService:
    """Scores rows by the version that the slot serves. `in_flight`, the requests begun and not yet answered, is counted by
    the protocols.
    """

    def __init__(self, slot: Slot, log: PredictionWriter, metrics: Metrics, limits: RequestLimits) -> None:
        self.slot, self.log, self.metrics, self.limits = slot, log, metrics, limits
        self.in_flight = 0
        self._unlogged: dict[ServableModel, list[ScoredRow]] = {}
        self._ids, self._id_prefix = count(1), secrets.token_hex(4)
        metrics.register_gauge(
            "perennial_inflight_requests", "Requests begun and not yet answered.", lambda: {(): self.in_flight}
        )

    def current_batcher(self) -> Batcher:
        """Return the batcher of the version served, which sees what was written to the online store by now.

        Raises RequestError (503) if no version is served.
        """
        batcher = self.slot.batcher
        if batcher is None:
            raise RequestError(503, f"no version to serve: {self.slot.reason}")
        if batcher.model.rows.lookups is not None:
            batcher.model.rows.lookups.refresh()
        return batcher

    def admit(self, authorization: str | None) -> None:
        """Raise RequestError: 401 without the token, 503 if too many requests are in flight."""
        if self.limits.token is not None:
            sent, expected = authorization or "", f"Bearer {self.limits.token}"
            if not secrets.compare_digest(sent.encode(), expected.encode()):
                reason = "authorization: send the header Authorization: Bearer <token>"
                raise RequestError(401, reason, "authorization")
        if self.in_flight > self.limits.max_in_flight:
            reason = f"{self.limits.max_in_flight} requests are under way; come back in a second"
            raise RequestError(503, reason)

    def count_response(self, route: str, code: str, started_at: float) -> None:
        """Count one response, to a request that came at `started_at` (time.perf_counter)."""
        batcher = self.slot.batcher
        self.metrics.requests.inc((route, code, batcher.model.version if batcher else ""))
        self.metrics.request_seconds.observe(time.perf_counter() - started_at, (route,))

    def request_id(self, client_id: str | None) -> str:
        """Return the client's own id, so that a mirrored request has the same in both slots, or a new one."""
        if client_id and len(client_id) <= 64 and client_id.isascii() and client_id.isprintable():
            return client_id
        return f"{self._id_prefix}-{next(self._ids):x}"

    def score(
        self, batcher: Batcher, rows: list[EncodedRow], request_id: str, started_at: float, on_scores: OnScores
    ) -> None:
        """Have the rows scored, pass the scores or an error to `on_scores`, then log the rows.

        Raises RequestError (503) under too much load.
        """

        def respond_and_log(scores: list[float] | Exception) -> None:
            on_scores(scores)
            if isinstance(scores, list):
                self._log_after_turn(batcher.model, rows, request_id, started_at, scores)

        batcher.submit(rows, started_at, respond_and_log)

    def _log_after_turn(
        self, model: ServableModel, rows: list[EncodedRow], request_id: str, started_at: float, scores: list[float]
    ) -> None:
        """Keep the rows until all responses of this turn of the event loop are written."""
        if not _is_sampled(request_id, model.log_share):
            self.metrics.log_rows.inc(("left_out",), len(scores))
            return
        if not self._unlogged:
            asyncio.get_running_loop().call_soon(self._write_log)
        unlogged, ms = self._unlogged.setdefault(model, []), (time.perf_counter() - started_at) * 1000
        if len(scores) == 1:
            unlogged.append(ScoredRow(request_id, rows[0], scores[0], ms))
        else:
            unlogged += [ScoredRow(f"{request_id}-{i}", row, scores[i], ms) for i, row in enumerate(rows)]

    def _write_log(self) -> None:
        at, unlogged, self._unlogged = time.time(), self._unlogged, {}
        for model, rows in unlogged.items():
            self.log.add(model, at, rows)


def _is_sampled(request_id: str, share: float) -> bool:
    """Return whether that share of all ids holds this one; a mirrored request is in the logs of both slots or of none."""
    return share >= 1 or zlib.crc32(request_id.encode()) < share * 2**32
