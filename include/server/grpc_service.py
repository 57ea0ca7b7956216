"""The Open Inference Protocol V2 over gRPC, on a port of its own: the same answers as under `/v2`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np

from include.server import infer
from include.server.batching import Batcher
from include.server.grpc_messages import PACKAGE, message_class
from include.server.responses import RequestError
from include.server.rows import EncodedRow
from include.server.service import ScoringService
from include.server.tensors import DATATYPES, Infer, Input, Output, Parameters

SERVICE = f"{PACKAGE}.GRPCInferenceService"
STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
#: The fields of a tensor's typed contents, by datatype; a tensor may also come as raw bytes.
CONTENT_FIELDS = {"INT64": "int64_contents", "INT32": "int_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}

# The messages' classes are made at run time, so nothing is known of them here.
Message = Any
Method = Callable[[Message], Awaitable[Message]]


async def start(service: ScoringService, address: str) -> grpc.aio.Server:
    """Return a server that serves at `address`. Raises RuntimeError if the address is in use."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", service.limits.max_body_bytes)])
    server.add_generic_rpc_handlers((_generic_handler(service),))
    server.add_insecure_port(address)
    await server.start()
    return server


def _generic_handler(service: ScoringService) -> grpc.GenericRpcHandler:
    servicer = InferenceServicer(service)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            servicer.handler(name),
            request_deserializer=message_class(f"{name}Request").FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        for name in servicer.methods
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


class InferenceServicer:
    """The methods of GRPCInferenceService by their names."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self.methods: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }

    def handler(self, name: str) -> Callable[[Message, grpc.aio.ServicerContext], Awaitable[Message]]:
        """Return the method as gRPC calls it: it counts its requests and turns a RequestError into a status."""
        method, route = self.methods[name], f"grpc/{name}"

        async def handle(request: Message, context: grpc.aio.ServicerContext) -> Message:
            started_at, code = time.perf_counter(), "200"
            self._service.in_flight += 1
            try:
                if name == "ModelInfer":
                    self._service.admit(dict(context.invocation_metadata()).get("authorization"))
                return await method(request)
            except RequestError as error:
                code = str(error.status)
                await context.abort(STATUS_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.reason)
            finally:
                self._service.in_flight -= 1
                self._service.count_response(route, code, started_at)

        return handle

    async def _server_live(self, _: Message) -> Message:
        return message_class("ServerLiveResponse")(live=True)

    async def _server_ready(self, _: Message) -> Message:
        return message_class("ServerReadyResponse")(ready=self._service.slot.ready)

    async def _model_ready(self, request: Message) -> Message:
        try:
            self._check_served(request.name, request.version)
        except RequestError:
            return message_class("ModelReadyResponse")(ready=False)
        return message_class("ModelReadyResponse")(ready=self._service.slot.ready)

    async def _server_metadata(self, _: Message) -> Message:
        return message_class("ServerMetadataResponse")(**infer.SERVER_METADATA)

    async def _model_metadata(self, request: Message) -> Message:
        self._check_served(request.name, request.version)
        metadata = infer.model_metadata(self._service.current_batcher().model, request.name)
        return message_class("ModelMetadataResponse")(**metadata)

    async def _model_infer(self, request: Message) -> Message:
        self._check_served(request.model_name, request.model_version)
        started_at, batcher = time.perf_counter(), self._service.current_batcher()
        rows = infer.encode_rows(batcher.model, *_as_json_request(request), self._service.limits.max_rows)
        request_id = self._service.request_id(request.id)
        scores = await self._score(batcher, rows, request_id, started_at)
        output = message_class("InferOutputTensor")(name="score", datatype="FP32", shape=[len(scores)])
        return message_class("ModelInferResponse")(
            model_name=request.model_name,
            model_version=batcher.model.version,
            id=request_id,
            outputs=[output],
            raw_output_contents=[np.array(scores, "<f4").tobytes()],
        )

    def _score(
        self, batcher: Batcher, rows: list[EncodedRow], request_id: str, started_at: float
    ) -> Awaitable[list[float]]:
        future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

        def on_scores(scores: list[float] | Exception) -> None:
            if future.done():  # the client has gone
                return
            future.set_result(scores) if isinstance(scores, list) else future.set_exception(scores)

        self._service.score(batcher, rows, request_id, started_at, on_scores)
        return future

    def _check_served(self, name: str, version: str) -> None:
        """Raise RequestError (404) unless this model, and this version if one is named, is served."""
        slot = self._service.slot
        if name != slot.model:
            raise RequestError(404, f"there is no model {name[:60]} here; this slot serves {slot.model}")
        if version not in ("", self._service.current_batcher().model.version):
            raise RequestError(404, f"version {version[:20]} is not served here")


def _as_json_request(request: Message) -> tuple[Infer, dict[str, bytes]]:
    """Return the request as the REST protocol has it, all tensors binary. Raises RequestError (400) that names the tensor."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RequestError(400, f"raw_input_contents: {len(raw)} where there are {len(request.inputs)} inputs")
    inputs, blobs = [], {}
    for i, tensor in enumerate(request.inputs):
        if tensor.datatype not in DATATYPES:
            reason = f"{tensor.name}: datatype {tensor.datatype[:20]} is not {', '.join(DATATYPES)}"
            raise RequestError(400, reason, tensor.name)
        values = getattr(tensor.contents, CONTENT_FIELDS[tensor.datatype])
        blobs[tensor.name] = raw[i] if raw else np.array(values, DATATYPES[tensor.datatype]).tobytes()
        size = Parameters(binary_data_size=len(blobs[tensor.name]))
        inputs.append(Input(tensor.name, list(tensor.shape), tensor.datatype, parameters=size))
    outputs = [Output(output.name) for output in request.outputs]
    return Infer(inputs, outputs=outputs), blobs
