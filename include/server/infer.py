"""The Open Inference Protocol V2 for one model: metadata, and infer over the tensors `ids` and `numbers`."""

from array import array
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from include.server.answers import JSON, Answer, Refused
from include.server.model import Model
from include.server.rows import Encoded
from include.server.tensors import Infer, rows_of

SERVER = {"name": "perennial", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
LENGTH = "inference-header-content-length"


def metadata(model: Model, name: str) -> dict[str, Any]:
    signature = model.manifest["signature"]
    return {"name": name, "versions": [model.version], "platform": "onnx_onnxv1", **signature}


def read(model: Model, request: Infer, blobs: Mapping[str, bytes], max_rows: int) -> list[Encoded]:
    """The request's encoded rows; `blobs` are its binary tensors. Raises Refused (400) naming the tensor at fault."""
    inputs = {t.name: t for t in request.inputs}
    wanted = {"ids": (len(model.encoding.categorical), np.int64), "numbers": (len(model.encoding.numeric), np.float32)}
    for name in (*inputs, *(o.name for o in request.outputs)):
        if name not in wanted and name != "score":
            raise Refused(400, f"{name[:60]}: the model has no such tensor", name[:60])
    tensors = {}
    for name, (width, kind) in wanted.items():
        if name not in inputs:
            raise Refused(400, f"{name}: this input is missing", name)
        tensors[name] = rows_of(inputs[name], blobs.get(name), width, kind)
    ids, numbers = tensors["ids"], tensors["numbers"]
    if len(ids) != len(numbers):
        raise Refused(400, f"numbers: {len(numbers)} rows where ids has {len(ids)}", "numbers")
    if len(ids) > max_rows:
        raise Refused(413, f"ids: {len(ids)} rows, at most {max_rows} go into one request", "ids")
    if (bad := ids.view(np.uint64) >= model.sizes).any():  # a negative one is a large one there
        row, column = (int(i) for i in np.argwhere(bad)[0])
        field, size = model.encoding.categorical[column], model.sizes[column]
        raise Refused(400, f"ids: row {row}, {field}: {ids[row, column]} is not below {size}", "ids")
    if len(ids) == 1:
        return [Encoded(ids.tobytes(), numbers.tobytes())]
    return [Encoded(own.tobytes(), values.tobytes()) for own, values in zip(ids, numbers, strict=True)]


def write(model: Model, name: str, request: Infer, request_id: str, scores: list[float]) -> Answer:
    """The answer: JSON, or the scores as binary tensor where the request asks so."""
    asked = next((o.parameters.binary_data for o in request.outputs if o.name == "score"), None)
    binary = bool(request.parameters.binary_data_output) if asked is None else asked
    blob = np.array(scores, dtype="<f4").tobytes() if binary else b""
    score: dict[str, Any] = {"name": "score", "datatype": "FP32", "shape": [len(scores)]}
    score |= {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": scores}
    head = msgspec.json.encode(
        {"model_name": name, "model_version": model.version, "id": request.id or request_id, "outputs": [score]}
    )
    if not binary:
        return Answer(200, head, JSON)
    headers = (("content-type", "application/octet-stream"), (LENGTH, str(len(head))))
    return Answer(200, head + blob, headers)


def features(model: Model, encoded: Encoded) -> msgspec.Struct:
    """What the ids and numbers stand for, for the prediction log; an unknown category reads `?`, a missing number NaN."""
    texts = [spelt[i] for spelt, i in zip(model.spelt, array("q", encoded.ids), strict=True)]
    return model.type(*texts, *array("f", encoded.numbers))
