"""The Open Inference Protocol V2 for one model: its metadata, and infer over the tensors `ids` and `numbers`."""

from array import array
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.server.responses import JSON, RequestError, Response
from include.server.rows import EncodedRow
from include.server.servable_model import ServableModel
from include.server.tensors import Infer, Input, ModelDtype, read_tensor

SERVER_METADATA = {"name": "perennial", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
#: The header that says how many bytes of a body are JSON; binary tensors follow.
JSON_LENGTH = "inference-header-content-length"
#: The tensors that a model takes and gives.
TENSOR_NAMES = {"ids", "numbers", "score"}


def model_metadata(model: ServableModel, name: str) -> dict[str, Any]:
    """Return the protocol's metadata of the model registered as `name`."""
    signature = msgspec.to_builtins(model.manifest.signature)
    return {"name": name, "versions": [model.version], "platform": "onnx_onnxv1", **signature}


def encode_rows(model: ServableModel, request: Infer, blobs: Mapping[str, bytes], max_rows: int) -> list[EncodedRow]:
    """Return the request's rows; `blobs` are its binary tensors. Raises RequestError (400, 413) that names the tensor."""
    inputs = {t.name: t for t in request.inputs}
    for name in (*inputs, *(o.name for o in request.outputs)):
        if name not in TENSOR_NAMES:
            raise RequestError(400, f"{name[:60]}: the model has no such tensor", name[:60])
    ids = _read_input("ids", inputs, blobs, len(model.encoding.categorical), np.int64)
    numbers = _read_input("numbers", inputs, blobs, len(model.encoding.numeric), np.float32)
    if len(ids) != len(numbers):
        raise RequestError(400, f"numbers: {len(numbers)} rows where ids has {len(ids)}", "numbers")
    if len(ids) > max_rows:
        raise RequestError(413, f"ids: {len(ids)} rows, at most {max_rows} go into one request", "ids")
    if (out_of_range := ids.view(np.uint64) >= model.vocabulary_sizes).any():  # as uint64, a negative id is a large one
        row, column = (int(i) for i in np.argwhere(out_of_range)[0])
        field, size = model.encoding.categorical[column], model.vocabulary_sizes[column]
        raise RequestError(400, f"ids: row {row}, {field}: {ids[row, column]} is not below {size}", "ids")
    if len(ids) == 1:
        return [EncodedRow(ids.tobytes(), numbers.tobytes())]
    return [EncodedRow(row.tobytes(), values.tobytes()) for row, values in zip(ids, numbers, strict=True)]


def _read_input(
    name: str, inputs: Mapping[str, Input], blobs: Mapping[str, bytes], width: int, dtype: ModelDtype
) -> NDArray[Any]:
    if name not in inputs:
        raise RequestError(400, f"{name}: this input is missing", name)
    return read_tensor(inputs[name], blobs.get(name), width, dtype)


def response(model: ServableModel, name: str, request: Infer, request_id: str, scores: list[float]) -> Response:
    """Return the scores as JSON, or as a binary tensor if the request asks for one."""
    binary = next((o.parameters.binary_data for o in request.outputs if o.name == "score"), None)
    if binary is None:
        binary = bool(request.parameters.binary_data_output)
    blob = np.array(scores, dtype="<f4").tobytes() if binary else b""
    output: dict[str, Any] = {"name": "score", "datatype": "FP32", "shape": [len(scores)]}
    output |= {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": scores}
    body = msgspec.json.encode(
        {"model_name": name, "model_version": model.version, "id": request.id or request_id, "outputs": [output]}
    )
    if not binary:
        return Response(200, body, JSON)
    headers = (("content-type", "application/octet-stream"), (JSON_LENGTH, str(len(body))))
    return Response(200, body + blob, headers)


def decode_features(model: ServableModel, row: EncodedRow) -> msgspec.Struct:
    """Return the features that ids and numbers stand for; an unknown category reads `?`, a missing number NaN."""
    texts = [texts[i] for texts, i in zip(model.texts_by_id, array("q", row.ids), strict=True)]
    return model.feature_type(*texts, *array("f", row.numbers))
