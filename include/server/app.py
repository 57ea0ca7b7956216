"""HTTP in, HTTP out: the routes, the limits on what comes in, and one answer for every request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from include.server import infer, openapi
from include.server.answers import JSON, TEXT, Answer, Refused, json_answer
from include.server.feedback import Feedback
from include.server.service import Service
from include.server.tensors import read_request

Handler = Callable[[Any, Any], Awaitable[Answer]]


class Prediction(msgspec.Struct):
    request_id: str
    model: str
    version: str
    slot: str
    scores: list[float]


class App:
    """An RSGI application (github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md)."""

    def __init__(self, service: Service, labels: Feedback) -> None:
        self._service, self._slot, self._labels = service, service.slot, labels
        self._bounds = service.bounds
        self._model_path = f"/v2/models/{self._slot.model}"
        self._encode = msgspec.json.Encoder().encode
        self._reading: dict[Any, float] = {}
        self._routes: dict[str, tuple[str, Handler]] = {
            "/predict": ("POST", self._predict),
            "/feedback": ("POST", self._feedback),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
            "/status": ("GET", self._status),
            "/metrics": ("GET", self._render),
            "/v2": ("GET", self._server),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
            self._model_path: ("GET", self._metadata),
            f"{self._model_path}/ready": ("GET", self._ready),
            f"{self._model_path}/infer": ("POST", self._infer),
        }

    async def give_up_slow_bodies(self) -> None:
        """Runs until it is cancelled. One look at all, because a timer a request would cost more than its scoring."""
        while True:
            await asyncio.sleep(self._bounds.seconds / 10)
            late = time.monotonic() - self._bounds.seconds
            for task in [task for task, begun in self._reading.items() if begun < late]:
                task.cancel()

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        begun = time.perf_counter()
        self._service.under_way += 1
        route, answer = "none", Answer(500, b"", JSON)
        try:
            route, method, handle = self._route(scope.path)
            if scope.method != method:
                raise Refused(405, f"{route} takes {method}")
            if method == "POST":
                self._service.admit(scope.headers.get("authorization"))
            answer = await handle(scope, proto)
        except Refused as refused:
            answer = refused.answer()
        finally:
            self._service.under_way -= 1
            proto.response_bytes(answer.status, answer.headers, answer.body)
            self._service.count(route, str(answer.status), begun)

    def _route(self, path: str) -> tuple[str, str, Handler]:
        found = self._routes.get(path)
        if found is not None:
            return path, *found
        return self._versioned(path)

    def _versioned(self, path: str) -> tuple[str, str, Handler]:
        """The route without `/versions/<number>`, where that is the version served. Raises Refused (404)."""
        head, mark, rest = path.partition("/versions/")
        version, slash, tail = rest.partition("/")
        route = head + slash + tail
        if not (mark and head == self._model_path and route in self._routes):
            raise Refused(404, f"there is no {path[:100]} here")
        if version != self._service.serving().model.version:
            raise Refused(404, f"version {version[:20]} is not served here; /status says which one is")
        return route, *self._routes[route]

    async def _predict(self, scope: Any, proto: Any) -> Answer:
        body = await self._body(scope, proto)
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        read = serving.model.rows
        rows = read.read(body)
        encoded = [read.encode(row) for row in rows]
        request_id = service.request_id(scope.headers.get("x-request-id"))
        scores = await service.score(serving, encoded, request_id, rows=rows, begun=begun)
        said = Prediction(request_id, self._slot.model, serving.model.version, self._slot.name, scores)
        return Answer(200, self._encode(said), JSON)

    async def _infer(self, scope: Any, proto: Any) -> Answer:
        body = await self._body(scope, proto)
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        request, blobs = read_request(body, scope.headers.get(infer.LENGTH))
        encoded = infer.read(serving.model, request, blobs, self._bounds.rows)
        request_id = service.request_id(request.id or scope.headers.get("x-request-id"))
        scores = await service.score(serving, encoded, request_id, rows=None, begun=begun)
        return infer.write(serving.model, self._slot.model, request, request_id, scores)

    async def _body(self, scope: Any, proto: Any) -> bytes:
        """The whole body. Raises Refused: 413 where it is too long, 408 where it comes too slowly."""
        most, length = self._bounds.body, scope.headers.get("content-length")
        if scope.headers.get("content-encoding") not in (None, "identity"):
            raise Refused(415, "content-encoding: send the body as it is")
        if length is not None and (not length.isdigit() or int(length) > most):
            raise Refused(413, f"the body has {length[:20]} bytes, at most {most} are taken")
        task = asyncio.current_task()
        self._reading[task] = time.monotonic()
        try:
            if length is not None:
                return bytes(await proto())
            body = bytearray()
            async for part in proto:
                body += part
                if len(body) > most:
                    raise Refused(413, f"the body has more than {most} bytes")
            return bytes(body)
        except asyncio.CancelledError:
            raise Refused(408, f"the body was not sent within {self._bounds.seconds:g} s") from None
        finally:
            del self._reading[task]

    async def _feedback(self, scope: Any, proto: Any) -> Answer:
        return json_answer({"taken": await self._labels.take(await self._body(scope, proto))})

    async def _openapi(self, _scope: Any, _proto: Any) -> Answer:
        return json_answer(self._described())

    async def _docs(self, _scope: Any, _proto: Any) -> Answer:
        return openapi.page(self._described())

    def _described(self) -> dict[str, Any]:
        serving = self._slot.serving
        return openapi.describe(serving.model if serving else None, self._slot.model)

    async def _status(self, _scope: Any, _proto: Any) -> Answer:
        return json_answer({**self._slot.status(), "under_way": self._service.under_way})

    async def _render(self, _scope: Any, _proto: Any) -> Answer:
        return Answer(200, self._service.metrics.render(), TEXT)

    async def _server(self, _scope: Any, _proto: Any) -> Answer:
        return json_answer(infer.SERVER)

    async def _live(self, _scope: Any, _proto: Any) -> Answer:
        return json_answer({"live": True})

    async def _ready(self, _scope: Any, _proto: Any) -> Answer:
        slot = self._slot
        said = {"name": slot.model, "ready": slot.ready, "reason": slot.reason}
        return json_answer(said, 200 if slot.ready else 503)

    async def _metadata(self, _scope: Any, _proto: Any) -> Answer:
        return json_answer(infer.metadata(self._service.serving().model, self._slot.model))
