"""HTTP in, HTTP out: the routes, the limits on what comes in, and one answer for every request."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from include.server import infer, openapi
from include.server.answers import JSON, TEXT, Answer, Refused, json_answer
from include.server.feedback import Feedback
from include.server.http import Request
from include.server.service import Service
from include.server.tensors import read_request

logger = logging.getLogger("perennial.server")

FAILED = Answer(500, b'{"error":"the server failed; its log says how"}', JSON)

Handler = Callable[[Request], Awaitable[Answer]]


class Prediction(msgspec.Struct):
    request_id: str
    model: str
    version: str
    slot: str
    scores: list[float]


class App:
    """What `http.Server` asks for answers."""

    def __init__(self, service: Service, labels: Feedback) -> None:
        self._service, self._slot, self._labels = service, service.slot, labels
        self._bounds = service.bounds
        self._model_path = f"/v2/models/{self._slot.model}"
        self._encode = msgspec.json.Encoder().encode
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

    def begin(self, request: Request) -> None:
        self._service.under_way += 1
        try:
            request.route, method, request.handle = self._route(request.path)
            if request.method != method:
                raise Refused(405, f"{request.route} takes {method}")
            if method == "POST":
                self._service.admit(request.header("authorization"))
            if request.header("content-encoding") not in (None, "identity"):
                raise Refused(415, "content-encoding: send the body as it is")
        except Refused as refused:
            request.refused = refused

    def leave(self) -> None:
        self._service.under_way -= 1

    async def answer(self, request: Request) -> Answer:
        answer = FAILED
        try:
            if request.refused is not None:
                raise request.refused
            answer = await request.handle(request)
        except Refused as refused:
            answer = refused.answer()
        except Exception:  # the fault is in the log; the connection and the others go on
            logger.exception("%s failed", request.route)
        self._service.under_way -= 1
        self._service.count(request.route, str(answer.status), request.begun)
        return answer

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

    async def _predict(self, request: Request) -> Answer:
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        rows = serving.model.rows.read(request.body)
        request_id = service.request_id(request.header("x-request-id"))
        scores = await service.score(serving, rows, request_id, begun)
        said = Prediction(request_id, self._slot.model, serving.model.version, self._slot.name, scores)
        return Answer(200, self._encode(said), JSON)

    async def _infer(self, request: Request) -> Answer:
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        asked, blobs = read_request(request.body, request.header(infer.LENGTH))
        rows = infer.read(serving.model, asked, blobs, self._bounds.rows)
        request_id = service.request_id(asked.id or request.header("x-request-id"))
        scores = await service.score(serving, rows, request_id, begun)
        return infer.write(serving.model, self._slot.model, asked, request_id, scores)

    async def _feedback(self, request: Request) -> Answer:
        return json_answer({"taken": await self._labels.take(request.body)})

    async def _openapi(self, _: Request) -> Answer:
        return json_answer(self._described())

    async def _docs(self, _: Request) -> Answer:
        return openapi.page(self._described())

    def _described(self) -> dict[str, Any]:
        serving = self._slot.serving
        return openapi.describe(serving.model if serving else None, self._slot.model)

    async def _status(self, _: Request) -> Answer:
        return json_answer({**self._slot.status(), "under_way": self._service.under_way})

    async def _render(self, _: Request) -> Answer:
        return Answer(200, self._service.metrics.render(), TEXT)

    async def _server(self, _: Request) -> Answer:
        return json_answer(infer.SERVER)

    async def _live(self, _: Request) -> Answer:
        return json_answer({"live": True})

    async def _ready(self, _: Request) -> Answer:
        slot = self._slot
        said = {"name": slot.model, "ready": slot.ready, "reason": slot.reason}
        return json_answer(said, 200 if slot.ready else 503)

    async def _metadata(self, _: Request) -> Answer:
        return json_answer(infer.metadata(self._service.serving().model, self._slot.model))
