"""HTTP in, HTTP out: the routes, the limits on what comes in, and one answer for every request."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from include.server import infer, openapi
from include.server.answers import JSON, TEXT, Answer, Refused, json_answer
from include.server.batching import Done
from include.server.feedback import Feedback
from include.server.requests import Request
from include.server.service import Service
from include.server.tensors import read_request

logger = logging.getLogger("perennial.server")

FAILED = Answer(500, b'{"error":"the server failed; its log says how"}', JSON)

#: None where the answer is given later.
Handler = Callable[[Request], Answer | None]


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
        self._taking: set[asyncio.Task[None]] = set()
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
            request.route, method, request.handle = self._route(request.head.path)
            if request.head.method != method:
                raise Refused(405, f"{request.route} takes {method}")
            if method == "POST":
                self._service.admit(request.header(b"authorization"))
            if request.header(b"content-encoding") not in (None, "identity"):
                raise Refused(415, "content-encoding: send the body as it is")
        except Refused as refused:
            request.refused = refused

    def leave(self) -> None:
        self._service.under_way -= 1

    def answer(self, request: Request) -> None:
        try:
            if request.refused is not None:
                raise request.refused
            answer = request.handle(request)
        except Exception as fault:
            answer = _failed(request, fault)
        if answer is not None:
            self._say(request, answer)

    def _say(self, request: Request, answer: Answer) -> None:
        self._service.under_way -= 1
        self._service.count(request.route, str(answer.status), request.begun)
        request.say(request, answer)

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

    def _predict(self, request: Request) -> None:
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        rows = serving.model.rows.read(request.body)
        request_id = service.request_id(request.header(b"x-request-id"))

        def write(scores: list[float]) -> Answer:
            said = Prediction(request_id, self._slot.model, serving.model.version, self._slot.name, scores)
            return Answer(200, self._encode(said), JSON)

        service.score(serving, rows, request_id, begun, self._saying(request, write))

    def _infer(self, request: Request) -> None:
        begun, service = time.perf_counter(), self._service
        serving = service.serving()
        asked, blobs = read_request(request.body, request.header(infer.LENGTH.encode()))
        rows = infer.read(serving.model, asked, blobs, self._bounds.rows)
        request_id = service.request_id(asked.id or request.header(b"x-request-id"))
        write = partial(infer.write, serving.model, self._slot.model, asked, request_id)
        service.score(serving, rows, request_id, begun, self._saying(request, write))

    def _saying(self, request: Request, write: Callable[[list[float]], Answer]) -> Done:
        def done(scores: list[float] | Exception) -> None:
            self._say(request, write(scores) if isinstance(scores, list) else _failed(request, scores))

        return done

    def _feedback(self, request: Request) -> None:
        task = asyncio.create_task(self._take(request))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _take(self, request: Request) -> None:
        try:
            answer = json_answer({"taken": await self._labels.take(request.body)})
        except Refused as refused:
            answer = refused.answer()
        self._say(request, answer)

    def _openapi(self, _: Request) -> Answer:
        return json_answer(self._described())

    def _docs(self, _: Request) -> Answer:
        return openapi.page(self._described())

    def _described(self) -> dict[str, Any]:
        serving = self._slot.serving
        return openapi.describe(serving.model if serving else None, self._slot.model)

    def _status(self, _: Request) -> Answer:
        return json_answer({**self._slot.status(), "under_way": self._service.under_way})

    def _render(self, _: Request) -> Answer:
        return Answer(200, self._service.metrics.render(), TEXT)

    def _server(self, _: Request) -> Answer:
        return json_answer(infer.SERVER)

    def _live(self, _: Request) -> Answer:
        return json_answer({"live": True})

    def _ready(self, _: Request) -> Answer:
        slot = self._slot
        said = {"name": slot.model, "ready": slot.ready, "reason": slot.reason}
        return json_answer(said, 200 if slot.ready else 503)

    def _metadata(self, _: Request) -> Answer:
        return json_answer(infer.metadata(self._service.serving().model, self._slot.model))


def _failed(request: Request, fault: Exception) -> Answer:
    if isinstance(fault, Refused):
        return fault.answer()
    logger.error("%s failed", request.route, exc_info=fault)
    return FAILED
