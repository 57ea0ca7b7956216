"""The gRPC messages of the Open Inference Protocol V2, built from a table of their fields; there is no generated code.

A line of the table is a message and its fields as `number name type`; `*` marks a repeated field. Fields that the server never
reads (the maps of parameters among them) are left out, because protobuf skips fields that a message does not have.
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


def _file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    for line in TABLE.replace("\\\n", "").strip().splitlines():
        name, _, fields = line.partition(":")
        message = file.message_type.add(name=name)
        for number, field, field_type in (text.split() for text in fields.split(",") if text.strip()):
            _add_field(message, int(number), field, field_type)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, number: int, name: str, field_type: str) -> None:
    element_type = field_type.removesuffix("*")
    field = message.field.add(name=name, number=number)
    field.label = Field.LABEL_OPTIONAL if element_type == field_type else Field.LABEL_REPEATED
    if element_type[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{element_type}"
    else:
        field.type = Field.Type.Value(f"TYPE_{element_type.upper()}")


# A pool of its own: the names may be registered in the process already, by a client's generated code.
_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file_descriptor())


def message_class(name: str) -> Any:
    """Return the class of the message of that name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
