"""ONNX graphs in files, their embedding tables apart: what handles a graph in memory copies all of it, several times."""

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

#: The bytes of each table by its name in the graph.
Tables = Mapping[str, bytes | memoryview]

#: Numbers of protobuf fields that onnx.proto gives.
GRAPH = ModelProto.GRAPH_FIELD_NUMBER
INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER


def read(path: Path) -> tuple[ModelProto, Tables]:
    """Return the graph with but the first row of each table that it looks rows up in, and the tables."""
    model = onnx.load(path)
    looked_up, tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}, {}
    for tensor in model.graph.initializer:
        if tensor.name in looked_up and tensor.raw_data and tensor.dims[0]:
            rows = tables[tensor.name] = tensor.raw_data
            tensor.raw_data, tensor.dims[0] = rows[: len(rows) // tensor.dims[0]], 1
    return ModelProto.FromString(model.SerializeToString()), tables


def write(path: Path, model: ModelProto, tables: Tables) -> None:
    """Write the graph with these tables, each in place of its first row, as one file; the model is used up."""
    tensors = []  # (bytes before a table, the table)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in tables]:
        model.graph.initializer.remove(tensor)
        rows = tables[tensor.name]
        tensor.dims[0] = len(rows) // len(tensor.raw_data)
        tensor.ClearField("raw_data")
        head = tensor.SerializeToString() + _field_header(RAW_DATA, len(rows))
        tensors.append((_field_header(INITIALIZER, len(head) + len(rows)) + head, rows))
    body = model.graph.SerializeToString()
    model.ClearField("graph")
    size = len(body) + sum(len(head) + len(rows) for head, rows in tensors)
    with path.open("wb") as file:
        file.write(model.SerializeToString() + _field_header(GRAPH, size) + body)
        for head, rows in tensors:
            file.write(head)
            file.write(rows)


def _field_header(number: int, length: int) -> bytes:
    """Return what protobuf writes before a field of so many bytes: number and wire type 2, then the length, as varints."""
    return b"".join(_varint(value) for value in (number << 3 | 2, length))


def _varint(value: int) -> bytes:
    """Return the number in seven bits a byte, the lowest first; all but the last byte have the eighth bit set."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)
