"""Tensors of the Open Inference Protocol V2, as JSON or by the binary tensor extension.

Protocol: kserve.github.io, "Open Inference Protocol (V2)"; the extension: Triton's "Binary Tensor Data Extension".
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.domain.features.encoding import packed
from include.server.answers import Refused, unreadable

TYPES: dict[str, Any] = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "FP64": np.float64}


class Parameters(msgspec.Struct, frozen=True):
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: Literal["INT64", "INT32", "FP32", "FP64"]
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    parameters: Parameters = Parameters()


class Output(msgspec.Struct):
    name: str
    parameters: Parameters = Parameters()


class Infer(msgspec.Struct):
    inputs: list[Input]
    id: str = ""
    outputs: list[Output] = []
    parameters: Parameters = Parameters()


_infer = msgspec.json.Decoder(Infer)
_flat: dict[Any, msgspec.json.Decoder[Any]] = {
    np.int64: msgspec.json.Decoder(list[int]),
    np.float32: msgspec.json.Decoder(list[float | None]),
}
_nested: dict[Any, msgspec.json.Decoder[Any]] = {
    np.int64: msgspec.json.Decoder(list[list[int]]),
    np.float32: msgspec.json.Decoder(list[list[float | None]]),
}


def read_request(body: bytes, json_length: str | None) -> tuple[Infer, dict[str, bytes]]:
    """The request and its binary tensors by name. `json_length` is the Inference-Header-Content-Length, if sent.

    Raises Refused (400) naming what is wrong.
    """
    if json_length is not None and not (json_length.isdigit() and int(json_length) <= len(body)):
        raise Refused(400, f"Inference-Header-Content-Length: {json_length[:20]} is no length within this body")
    end = len(body) if json_length is None else int(json_length)
    try:
        request = _infer.decode(body[:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise unreadable(fault) from None
    blobs = {}
    for tensor in request.inputs:
        if (size := tensor.parameters.binary_data_size) is not None:
            if not 0 <= size <= len(body) - end:
                raise Refused(400, f"{tensor.name}: binary_data_size {size} goes past the end of the body", tensor.name)
            blobs[tensor.name] = body[end : end + size]
            end += size
    if end != len(body):
        raise Refused(400, f"{len(body) - end} bytes of the body belong to no input")
    return request, blobs


def rows_of(tensor: Input, blob: bytes | None, width: int, kind: Any) -> NDArray[Any]:
    """The tensor as `[rows, width]` of that numpy kind, int64 or float32, where NaN stands for what is missing or infinite.

    Raises Refused (400) naming the tensor.
    """
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != width or shape[0] < 1:
        raise Refused(400, f"{tensor.name}: shape {shape[:8]} is not [rows, {width}]", tensor.name)
    if tensor.datatype.startswith("FP") != (kind is np.float32):
        raise Refused(
            400, f"{tensor.name}: datatype {tensor.datatype} where the model takes {_name(kind)}", tensor.name
        )
    flat = _binary(tensor, blob, kind) if blob is not None else _listed(tensor, kind)
    if len(flat) != math.prod(shape):
        raise Refused(400, f"{tensor.name}: {len(flat)} values do not fill shape {shape}", tensor.name)
    return flat.reshape(shape)


def _binary(tensor: Input, blob: bytes, kind: Any) -> NDArray[Any]:
    sent = np.dtype(TYPES[tensor.datatype]).newbyteorder("<")
    if len(blob) % sent.itemsize:
        raise Refused(400, f"{tensor.name}: {len(blob)} bytes are no whole number of {tensor.datatype}", tensor.name)
    with np.errstate(over="ignore"):
        values = np.frombuffer(blob, dtype=sent).astype(kind, copy=False)
    return values if kind is np.int64 else np.where(np.isfinite(values), values, np.float32(np.nan))


def _listed(tensor: Input, kind: Any) -> NDArray[Any]:
    raw = bytes(tensor.data)
    if not raw:
        raise Refused(400, f"{tensor.name}: neither data nor parameters.binary_data_size", tensor.name)
    try:
        if raw[1:].lstrip()[:1] == b"[":
            values: Sequence[Any] = [v for row in _nested[kind].decode(raw) for v in row]
        else:
            values = _flat[kind].decode(raw)
        return np.array(values, np.int64) if kind is np.int64 else np.frombuffer(packed(values), np.float32)
    except OverflowError:
        raise Refused(400, f"{tensor.name}: a value does not fit {tensor.datatype}", tensor.name) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise unreadable(fault, tensor.name) from None


def _name(kind: Any) -> str:
    return next(name for name, known in TYPES.items() if known is kind)
