"""Tensors of the Open Inference Protocol V2, as JSON or by the binary tensor extension.

Protocol: kserve.github.io, "Open Inference Protocol (V2)"; the extension: Triton's "Binary Tensor Data Extension".
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.domain.features.encoding import pack_floats
from include.server.responses import DECODE_ERRORS, RequestError, decode_error

#: numpy's types by the protocol's names.
DATATYPES: dict[str, type[np.number[Any]]] = {
    "INT64": np.int64,
    "INT32": np.int32,
    "FP32": np.float32,
    "FP64": np.float64,
}
#: A type that the model takes.
ModelDtype = type[np.int64] | type[np.float32]


class Parameters(msgspec.Struct, frozen=True):
    """Parameters of the binary tensor extension; those of other extensions are ignored."""

    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None


class Input(msgspec.Struct):
    """An input tensor; its values are in `data`, or `binary_data_size` bytes after the JSON."""

    name: str
    shape: list[int]
    datatype: Literal["INT64", "INT32", "FP32", "FP64"]
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    parameters: Parameters = Parameters()


class Output(msgspec.Struct):
    """A requested output tensor."""

    name: str
    parameters: Parameters = Parameters()


class Infer(msgspec.Struct):
    """The body of an infer request."""

    inputs: list[Input]
    id: str = ""
    outputs: list[Output] = []
    parameters: Parameters = Parameters()


_decode_infer = msgspec.json.Decoder(Infer).decode
_decode_flat: dict[ModelDtype, msgspec.json.Decoder[Any]] = {
    np.int64: msgspec.json.Decoder(list[int]),
    np.float32: msgspec.json.Decoder(list[float | None]),
}
_decode_nested: dict[ModelDtype, msgspec.json.Decoder[Any]] = {
    np.int64: msgspec.json.Decoder(list[list[int]]),
    np.float32: msgspec.json.Decoder(list[list[float | None]]),
}


def decode_infer(body: bytes, json_length: str | None) -> tuple[Infer, dict[str, bytes]]:
    """Return the request and the bytes of its binary tensors by name.

    `json_length` is the header Inference-Header-Content-Length, if it was sent.
    Raises RequestError (400) that names what is wrong.
    """
    if json_length is not None and not (json_length.isdigit() and int(json_length) <= len(body)):
        raise RequestError(400, f"Inference-Header-Content-Length: {json_length[:20]} is no length within this body")
    end = len(body) if json_length is None else int(json_length)
    try:
        request = _decode_infer(body[:end])
    except DECODE_ERRORS as error:
        raise decode_error(error) from None
    blobs = {}
    for tensor in request.inputs:
        if (size := tensor.parameters.binary_data_size) is not None:
            if not 0 <= size <= len(body) - end:
                reason = f"{tensor.name}: binary_data_size {size} goes past the end of the body"
                raise RequestError(400, reason, tensor.name)
            blobs[tensor.name] = body[end : end + size]
            end += size
    if end != len(body):
        raise RequestError(400, f"{len(body) - end} bytes of the body belong to no input")
    return request, blobs


def read_tensor(tensor: Input, blob: bytes | None, width: int, dtype: ModelDtype) -> NDArray[Any]:
    """Return the tensor as `[rows, width]` of that type; of floats, NaN stands for what is missing or infinite.

    Raises RequestError (400) that names the tensor.
    """
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != width or shape[0] < 1:
        raise RequestError(400, f"{tensor.name}: shape {shape[:8]} is not [rows, {width}]", tensor.name)
    if tensor.datatype.startswith("FP") != (dtype is np.float32):
        reason = f"{tensor.name}: datatype {tensor.datatype} where the model takes {_datatype(dtype)}"
        raise RequestError(400, reason, tensor.name)
    flat = _from_bytes(tensor, blob, dtype) if blob is not None else _from_json(tensor, dtype)
    if len(flat) != math.prod(shape):
        raise RequestError(400, f"{tensor.name}: {len(flat)} values do not fill shape {shape}", tensor.name)
    return flat.reshape(shape)


def _from_bytes(tensor: Input, blob: bytes, dtype: ModelDtype) -> NDArray[Any]:
    wire_dtype = np.dtype(DATATYPES[tensor.datatype]).newbyteorder("<")
    if len(blob) % wire_dtype.itemsize:
        reason = f"{tensor.name}: {len(blob)} bytes are no whole number of {tensor.datatype}"
        raise RequestError(400, reason, tensor.name)
    with np.errstate(over="ignore"):
        values = np.frombuffer(blob, dtype=wire_dtype).astype(dtype, copy=False)
    return values if dtype is np.int64 else np.where(np.isfinite(values), values, np.float32(np.nan))


def _from_json(tensor: Input, dtype: ModelDtype) -> NDArray[Any]:
    raw = bytes(tensor.data)
    if not raw:
        raise RequestError(400, f"{tensor.name}: neither data nor parameters.binary_data_size", tensor.name)
    try:
        if raw[1:].lstrip()[:1] == b"[":
            values: Sequence[Any] = [v for row in _decode_nested[dtype].decode(raw) for v in row]
        else:
            values = _decode_flat[dtype].decode(raw)
        return np.array(values, np.int64) if dtype is np.int64 else np.frombuffer(pack_floats(values), np.float32)
    except OverflowError:
        raise RequestError(400, f"{tensor.name}: a value does not fit {tensor.datatype}", tensor.name) from None
    except DECODE_ERRORS as error:
        raise decode_error(error, tensor.name) from None


def _datatype(dtype: ModelDtype) -> str:
    return next(name for name, numpy_type in DATATYPES.items() if numpy_type is dtype)
