"""The gRPC messages of the Open Inference Protocol V2, built from this table of its fields; no generated code.

A line is a message and its fields as `number name type`; `*` marks a repeated one. Fields that the server never reads
(the maps of parameters among them) are left out: protobuf skips what it does not know.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
TABLE = """
ServerLiveRequest:
ServerLiveResponse: 1 live bool
ServerReadyRequest:
ServerReadyResponse: 1 ready bool
ModelReadyRequest: 1 name string, 2 version string
ModelReadyResponse: 1 ready bool
ServerMetadataRequest:
ServerMetadataResponse: 1 name string, 2 version string, 3 extensions string*
ModelMetadataRequest: 1 name string, 2 version string
TensorMetadata: 1 name string, 2 datatype string, 3 shape int64*
ModelMetadataResponse: 1 name string, 2 versions string*, 3 platform string, 4 inputs TensorMetadata*, 5 outputs TensorMetadata*
InferTensorContents: 2 int_contents int32*, 3 int64_contents int64*, 6 fp32_contents float*, 7 fp64_contents double*
InferInputTensor: 1 name string, 2 datatype string, 3 shape int64*, 5 contents InferTensorContents
InferOutputTensor: 1 name string, 2 datatype string, 3 shape int64*, 5 contents InferTensorContents
InferRequestedOutputTensor: 1 name string
ModelInferRequest: 1 model_name string, 2 model_version string, 3 id string, 5 inputs InferInputTensor*,\
 6 outputs InferRequestedOutputTensor*, 7 raw_input_contents bytes*
ModelInferResponse: 1 model_name string, 2 model_version string, 3 id string, 5 outputs InferOutputTensor*,\
 6 raw_output_contents bytes*
"""

Field = descriptor_pb2.FieldDescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    for line in TABLE.replace("\\\n", "").strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for number, field, kind in (text.split() for text in fields.split(",") if text.strip()):
            _add(message, int(number), field, kind)
    return file


def _add(message: descriptor_pb2.DescriptorProto, number: int, name: str, kind: str) -> None:
    plain = kind.removesuffix("*")
    added = message.field.add(name=name, number=number)
    added.label = Field.LABEL_OPTIONAL if plain == kind else Field.LABEL_REPEATED
    if plain[0].isupper():
        added.type, added.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{plain}"
    else:
        added.type = Field.Type.Value(f"TYPE_{plain.upper()}")


# A pool of its own: the names may be registered in the process already, by a client's generated code.
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message(name: str) -> Any:
    """The class of that message."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
