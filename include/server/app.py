"""The HTTP routes of a model server: each request gets one response from here, be it a score, a page or an error."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from include.server import infer, openapi
from include.server.batching import OnScores
from include.server.feedback import FeedbackLog
from include.server.requests import Handler, Request
from include.server.responses import JSON, PROMETHEUS_TEXT, RequestError, Response, json_response
from include.server.service import ScoringService
from include.server.tensors import decode_infer

logger = logging.getLogger("perennial.server")

SERVER_ERROR = Response(500, b'{"error":"the server failed; its log says how"}', JSON)


class Prediction(msgspec.Struct):
    """The body of a response of `/predict`; the scores are in the order of the request's rows."""

    request_id: str
    model: str
    version: str
    slot: str
    scores: list[float]


class App:
    """The application behind `HttpServer`; see `requests.Application`."""

    def __init__(self, service: ScoringService, feedback: FeedbackLog) -> None:
        self._service, self._slot, self._feedback = service, service.slot, feedback
        self._limits = service.limits
        self._model_path = f"/v2/models/{self._slot.model}"
        self._encode = msgspec.json.Encoder().encode
        self._feedback_tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[str, tuple[str, Handler]] = {
            "/predict": ("POST", self._predict),
            "/feedback": ("POST", self._append_feedback),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
            "/status": ("GET", self._status),
            "/metrics": ("GET", self._metrics),
            "/v2": ("GET", self._server_metadata),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
            self._model_path: ("GET", self._model_metadata),
            f"{self._model_path}/ready": ("GET", self._ready),
            f"{self._model_path}/infer": ("POST", self._infer),
        }

    def begin(self, request: Request) -> None:
        """Route a request and check its head; what is wrong with it is kept in `request.error`."""
        self._service.in_flight += 1
        try:
            request.route, method, request.handler = self._find_route(request.head.path)
            if request.head.method != method:
                raise RequestError(405, f"{request.route} takes {method}")
            if method == "POST":
                self._service.admit(request.header(b"authorization"))
            if request.header(b"content-encoding") not in (None, "identity"):
                raise RequestError(415, "content-encoding: send the body as it is")
        except RequestError as error:
            request.error = error

    def release(self, count: int) -> None:
        """Give up that many requests whose client has gone."""
        self._service.in_flight -= count

    def handle(self, request: Request) -> None:
        """Respond to a whole request, at once or when its rows are scored."""
        try:
            if request.error is not None:
                raise request.error
            response = request.handler(request)
        except Exception as error:
            response = _error_response(request, error)
        if response is not None:
            self._respond(request, response)

    def _respond(self, request: Request, response: Response) -> None:
        self._service.in_flight -= 1
        self._service.count_response(request.route, str(response.status), request.started_at)
        request.respond(request, response)

    def _find_route(self, path: str) -> tuple[str, str, Handler]:
        route = self._routes.get(path)
        if route is not None:
            return path, *route
        return self._find_versioned_route(path)

    def _find_versioned_route(self, path: str) -> tuple[str, str, Handler]:
        """Return the route without `/versions/<number>`. Raises RequestError (404) if that version is not served."""
        head, separator, rest = path.partition("/versions/")
        version, slash, tail = rest.partition("/")
        route = head + slash + tail
        if not (separator and head == self._model_path and route in self._routes):
            raise RequestError(404, f"there is no {path[:100]} here")
        if version != self._service.current_batcher().model.version:
            raise RequestError(404, f"version {version[:20]} is not served here; /status says which one is")
        return route, *self._routes[route]

    def _predict(self, request: Request) -> None:
        started_at, service = time.perf_counter(), self._service
        batcher = service.current_batcher()
        rows = batcher.model.rows.read(request.body)
        request_id = service.request_id(request.header(b"x-request-id"))

        def encode(scores: list[float]) -> Response:
            prediction = Prediction(request_id, self._slot.model, batcher.model.version, self._slot.name, scores)
            return Response(200, self._encode(prediction), JSON)

        service.score(batcher, rows, request_id, started_at, self._respond_with_scores(request, encode))

    def _infer(self, request: Request) -> None:
        started_at, service = time.perf_counter(), self._service
        batcher = service.current_batcher()
        body, blobs = decode_infer(request.body, request.header(infer.JSON_LENGTH.encode()))
        rows = infer.encode_rows(batcher.model, body, blobs, self._limits.max_rows)
        request_id = service.request_id(body.id or request.header(b"x-request-id"))
        encode = partial(infer.response, batcher.model, self._slot.model, body, request_id)
        service.score(batcher, rows, request_id, started_at, self._respond_with_scores(request, encode))

    def _respond_with_scores(self, request: Request, encode: Callable[[list[float]], Response]) -> OnScores:
        def on_scores(scores: list[float] | Exception) -> None:
            self._respond(request, encode(scores) if isinstance(scores, list) else _error_response(request, scores))

        return on_scores

    def _append_feedback(self, request: Request) -> None:
        task = asyncio.create_task(self._append_feedback_and_respond(request))
        self._feedback_tasks.add(task)
        task.add_done_callback(self._feedback_tasks.discard)

    async def _append_feedback_and_respond(self, request: Request) -> None:
        try:
            response = json_response({"taken": await self._feedback.append(request.body)})
        except RequestError as error:
            response = error.response()
        self._respond(request, response)

    def _openapi(self, _: Request) -> Response:
        return json_response(self._openapi_document())

    def _docs(self, _: Request) -> Response:
        return openapi.html_page(self._openapi_document())

    def _openapi_document(self) -> openapi.Json:
        batcher = self._slot.batcher
        return openapi.document(batcher.model if batcher else None, self._slot.model)

    def _status(self, _: Request) -> Response:
        return json_response(self._slot.status(self._service.in_flight))

    def _metrics(self, _: Request) -> Response:
        return Response(200, self._service.metrics.render(), PROMETHEUS_TEXT)

    def _server_metadata(self, _: Request) -> Response:
        return json_response(infer.SERVER_METADATA)

    def _live(self, _: Request) -> Response:
        return json_response({"live": True})

    def _ready(self, _: Request) -> Response:
        slot = self._slot
        body = {"name": slot.model, "ready": slot.ready, "reason": slot.reason}
        return json_response(body, 200 if slot.ready else 503)

    def _model_metadata(self, _: Request) -> Response:
        return json_response(infer.model_metadata(self._service.current_batcher().model, self._slot.model))


def _error_response(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return error.response()
    logger.error("%s failed", request.route, exc_info=error)
    return SERVER_ERROR
