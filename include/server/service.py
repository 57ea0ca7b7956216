"""What every protocol does with rows: admit, score, log, count."""

import asyncio
import secrets
import time
import zlib
from dataclasses import dataclass
from itertools import count

from include.server.answers import Refused
from include.server.batching import Batcher, Done
from include.server.log import PredictionLog, Scored
from include.server.metrics import Metrics
from include.server.model import Model
from include.server.rows import Encoded
from include.server.slot import Slot


@dataclass(frozen=True)
class Bounds:
    """Bytes of a body, requests under way, seconds to send a body, rows of a request; the token that callers must bear."""

    body: int = 1 << 20
    requests: int = 1024
    seconds: float = 5.0
    rows: int = 1024
    token: str | None = None


class Service:
    """`under_way` is kept by the protocols: requests begun and not yet answered."""

    def __init__(self, slot: Slot, log: PredictionLog, metrics: Metrics, bounds: Bounds) -> None:
        self.slot, self.log, self.metrics, self.bounds = slot, log, metrics, bounds
        self.under_way = 0
        self._scored: dict[Model, list[Scored]] = {}
        self._ids, self._origin = count(1), secrets.token_hex(4)
        metrics.gauge(
            "perennial_inflight_requests", "Requests begun and not yet answered.", lambda: {(): self.under_way}
        )

    def serving(self) -> Batcher:
        """The version served, which knows what was written to the online store by now. Raises Refused (503)."""
        serving = self.slot.serving
        if serving is None:
            raise Refused(503, f"no version to serve: {self.slot.reason}")
        if serving.model.rows.lookups is not None:
            serving.model.rows.lookups.look()
        return serving

    def admit(self, authorization: str | None) -> None:
        """Raises Refused: 401 without the token, 503 when too many requests are under way."""
        if self.bounds.token is not None:
            sent, wanted = authorization or "", f"Bearer {self.bounds.token}"
            if not secrets.compare_digest(sent.encode(), wanted.encode()):
                raise Refused(401, "authorization: send the header Authorization: Bearer <token>", "authorization")
        if self.under_way > self.bounds.requests:
            raise Refused(503, f"{self.bounds.requests} requests are under way; come back in a second")

    def count(self, route: str, code: str, begun: float) -> None:
        """One more answer, to a request that came at `begun` (time.perf_counter)."""
        serving = self.slot.serving
        self.metrics.requests.add((route, code, serving.model.version if serving else ""))
        self.metrics.seconds.observe(time.perf_counter() - begun, (route,))

    def request_id(self, sent: str | None) -> str:
        """The caller's own, so that a mirrored request has one id in both slots, or a new one."""
        if sent and len(sent) <= 64 and sent.isascii() and sent.isprintable():
            return sent
        return f"{self._origin}-{next(self._ids):x}"

    def score(self, serving: Batcher, rows: list[Encoded], request_id: str, begun: float, done: Done) -> None:
        """`done` is told the rows' scores, or why there are none; then they are logged. Raises Refused (503) under too much
        load."""

        def scored(scores: list[float] | Exception) -> None:
            done(scores)
            if isinstance(scores, list):
                self._keep(serving.model, rows, request_id, begun, scores)

        serving.submit(rows, begun, scored)

    def _keep(self, model: Model, rows: list[Encoded], request_id: str, begun: float, scores: list[float]) -> None:
        """Log them with all others of this turn of the event loop, after the answers."""
        if not _sampled(request_id, model.log_share):
            self.metrics.logged.add(("left_out",), len(scores))
            return
        if not self._scored:
            asyncio.get_running_loop().call_soon(self._log)
        kept, ms = self._scored.setdefault(model, []), (time.perf_counter() - begun) * 1000
        if len(scores) == 1:
            kept.append(Scored(request_id, rows[0], scores[0], ms))
        else:
            kept += [Scored(f"{request_id}-{i}", row, scores[i], ms) for i, row in enumerate(rows)]

    def _log(self) -> None:
        at, scored, self._scored = time.time(), self._scored, {}
        for model, rows in scored.items():
            self.log.add(model, at, rows)


def _sampled(request_id: str, share: float) -> bool:
    """By the id alone, so that a mirrored request is in the logs of both slots or of none."""
    return share >= 1 or zlib.crc32(request_id.encode()) < share * 2**32
