"""The Open Inference Protocol V2 over gRPC: the same answers as `/v2`, on a port of its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from include.server import infer
from include.server.answers import Refused
from include.server.batching import Batcher
from include.server.messages import PACKAGE, message
from include.server.rows import Encoded
from include.server.service import Service
from include.server.tensors import TYPES, Infer, Input, Output, Parameters

SERVICE = f"{PACKAGE}.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT, 503: grpc.StatusCode.UNAVAILABLE,
}  # fmt: skip
#: The typed contents of a tensor, where it does not come as raw bytes.
CONTENTS = {"INT64": "int64_contents", "INT32": "int_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}

Handler = Callable[[Any], Awaitable[Any]]


async def start(service: Service, address: str) -> grpc.aio.Server:
    """A serving server. Raises RuntimeError when the address is taken."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", service.bounds.body)])
    server.add_generic_rpc_handlers((_handlers(service),))
    server.add_insecure_port(address)
    await server.start()
    return server


def _handlers(service: Service) -> Any:
    protocol = Protocol(service)
    return grpc.method_handlers_generic_handler(SERVICE, {
        name: grpc.unary_unary_rpc_method_handler(
            protocol.answering(name),
            request_deserializer=message(f"{name}Request").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name in METHODS
    })  # fmt: skip


class Protocol:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._handlers: dict[str, Handler] = {
            "ServerLive": self._live, "ServerReady": self._ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._server, "ModelMetadata": self._metadata, "ModelInfer": self._infer,
        }  # fmt: skip

    def answering(self, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        handle, route = self._handlers[method], f"grpc/{method}"

        async def answer(request: Any, context: Any) -> Any:
            begun, code = time.perf_counter(), "200"
            self._service.under_way += 1
            try:
                if method == "ModelInfer":
                    self._service.admit(dict(context.invocation_metadata()).get("authorization"))
                return await handle(request)
            except Refused as refused:
                code = str(refused.status)
                await context.abort(CODES.get(refused.status, grpc.StatusCode.INTERNAL), refused.reason)
            finally:
                self._service.under_way -= 1
                self._service.count(route, code, begun)

        return answer

    async def _live(self, _: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, _: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._service.slot.ready)

    async def _model_ready(self, request: Any) -> Any:
        try:
            self._check(request.name, request.version)
        except Refused:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=self._service.slot.ready)

    async def _server(self, _: Any) -> Any:
        return message("ServerMetadataResponse")(**infer.SERVER)

    async def _metadata(self, request: Any) -> Any:
        self._check(request.name, request.version)
        return message("ModelMetadataResponse")(**infer.metadata(self._service.serving().model, request.name))

    async def _infer(self, request: Any) -> Any:
        self._check(request.model_name, request.model_version)
        begun, serving = time.perf_counter(), self._service.serving()
        rows = infer.read(serving.model, *_read(request), self._service.bounds.rows)
        request_id = self._service.request_id(request.id)
        scores = await self._scores(serving, rows, request_id, begun)
        output = message("InferOutputTensor")(name="score", datatype="FP32", shape=[len(scores)])
        return message("ModelInferResponse")(
            model_name=request.model_name, model_version=serving.model.version, id=request_id, outputs=[output],
            raw_output_contents=[np.array(scores, "<f4").tobytes()],
        )  # fmt: skip

    def _scores(self, serving: Batcher, rows: list[Encoded], request_id: str, begun: float) -> Awaitable[list[float]]:
        scored: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

        def done(scores: list[float] | Exception) -> None:
            if scored.done():  # its caller has gone
                return
            scored.set_result(scores) if isinstance(scores, list) else scored.set_exception(scores)

        self._service.score(serving, rows, request_id, begun, done)
        return scored

    def _check(self, name: str, version: str) -> None:
        slot = self._service.slot
        if name != slot.model:
            raise Refused(404, f"there is no model {name[:60]} here; this slot serves {slot.model}")
        if version not in ("", self._service.serving().model.version):
            raise Refused(404, f"version {version[:20]} is not served here")


def _read(request: Any) -> tuple[Infer, dict[str, bytes]]:
    """The request as the REST protocol has it, all tensors binary. Raises Refused (400) naming the tensor."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Refused(400, f"raw_input_contents: {len(raw)} where there are {len(request.inputs)} inputs")
    inputs, blobs = [], {}
    for i, tensor in enumerate(request.inputs):
        if tensor.datatype not in TYPES:
            raise Refused(400, f"{tensor.name}: datatype {tensor.datatype[:20]} is not {', '.join(TYPES)}", tensor.name)
        values = getattr(tensor.contents, CONTENTS[tensor.datatype])
        blobs[tensor.name] = raw[i] if raw else np.array(values, TYPES[tensor.datatype]).tobytes()
        size = Parameters(binary_data_size=len(blobs[tensor.name]))
        inputs.append(Input(tensor.name, list(tensor.shape), tensor.datatype, parameters=size))
    outputs = [Output(output.name) for output in request.outputs]
    return Infer(inputs, outputs=outputs), blobs
