import json
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from include.server import infer
from include.server.responses import RequestError
from include.server.rows import EncodedRow
from include.server.servable_model import LoadOptions, ServableModel, VersionReference, load_model
from include.server.tensors import Infer, decode_infer
from tests.serving import write_artifact

IDS = [[2, 2, 3, 4], [0, 1, 3, 4]]
NUMBERS = [[1.0, None], [2.5, 3.0]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServableModel:
    tags = write_artifact(tmp_path_factory.mktemp("model") / "run")
    return load_model(VersionReference("7", tags["artifact_uri"], tags["artifact_digest"]), LoadOptions())


def tensor(name: str, values: Any, datatype: str = "INT64", **changes: Any) -> dict[str, Any]:
    shape = [len(values), len(values[0])]
    return {"name": name, "shape": shape, "datatype": datatype, "data": values, **changes}


def body(ids: Any = None, numbers: Any = None, **more: Any) -> bytes:
    inputs = [ids or tensor("ids", IDS), numbers or tensor("numbers", NUMBERS, "FP32")]
    return json.dumps({"inputs": inputs, **more}).encode()


def read(model: ServableModel, data: bytes, length: str | None = None) -> list[Any]:
    return infer.encode_rows(model, *decode_infer(data, length), max_rows=8)


def binary(ids: NDArray[np.int64], numbers: NDArray[np.float32], **more: Any) -> tuple[bytes, str]:
    tensors: list[tuple[str, NDArray[Any], str]] = [("ids", ids, "INT64"), ("numbers", numbers, "FP32")]
    blobs = [values.tobytes() for _, values, _ in tensors]
    inputs = [
        {"name": n, "shape": list(values.shape), "datatype": d, "parameters": {"binary_data_size": values.nbytes}}
        for n, values, d in tensors
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(blobs), str(len(head))


def test_nested_flat_and_binary_tensors_are_the_same_rows(model: ServableModel) -> None:
    nested = read(model, body())
    flat = read(model, body(tensor("ids", IDS, data=[2, 2, 3, 4, 0, 1, 3, 4])))
    packed = read(model, *binary(np.array(IDS), np.array([[1, np.nan], [2.5, 3]], np.float32)))
    assert nested == flat == packed
    assert np.frombuffer(nested[0].ids, np.int64).tolist() == IDS[0]


def test_infinite_numbers_are_missing_as_in_rows(model: ServableModel) -> None:
    data, length = binary(np.array(IDS[:1]), np.array([[np.inf, -np.inf]], np.float32))
    assert np.isnan(np.frombuffer(read(model, data, length)[0].numbers, np.float32)).all()


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (body(tensor("ids", [IDS[0], [9, 2, 3, 4]])), "ids"),
        (body(tensor("ids", [IDS[0], [-1, 2, 3, 4]])), "ids"),
        (body(tensor("ids", [[2, 2, 3]])), "ids"),
        (body(tensor("ids", IDS, shape=[8])), "ids"),
        (body(tensor("ids", IDS, shape=[0, 4])), "ids"),
        (body(tensor("ids", IDS, shape=[-2, 4])), "ids"),
        (body(tensor("ids", IDS, shape=[2**62, 4])), "ids"),
        (body(tensor("ids", IDS, data=[1, 2, 3])), "ids"),
        (body(tensor("ids", IDS, data=[2**70] * 8)), "ids"),
        (body(tensor("ids", IDS, data=[1.5] * 8)), "ids[0]"),
        (body(tensor("ids", IDS, data="2")), "ids"),
        (body(tensor("ids", IDS, datatype="FP32")), "ids"),
        (body(tensor("ids", IDS, datatype="BYTES")), "inputs[0].datatype"),
        (body(tensor("ids", IDS[:1])), "numbers"),
        (body(tensor("ids", IDS * 5), tensor("numbers", NUMBERS * 5, "FP32")), "ids"),
        (body(tensor("idz", IDS)), "idz"),
        (body(tensor("score", IDS)), "ids"),
        (body(outputs=[{"name": "logit"}]), "logit"),
        (body({"name": "ids", "shape": [2, 4], "datatype": "INT64"}), "ids"),
        (body(tensor("ids", IDS, parameters={"binary_data_size": 64})), "ids"),
    ],
)
def test_wrong_tensors_are_refused_by_name(model: ServableModel, data: bytes, field: str) -> None:
    with pytest.raises(RequestError) as error:
        read(model, data)
    assert (error.value.status in (400, 413), error.value.field) == (True, field)


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "3"])
def test_a_wrong_header_length_is_refused(model: ServableModel, length: str) -> None:
    with pytest.raises(RequestError):
        read(model, body(), length)


def test_bytes_that_belong_to_no_tensor_are_refused(model: ServableModel) -> None:
    data, length = binary(np.array(IDS), np.zeros((2, 2), np.float32))
    with pytest.raises(RequestError, match="3 bytes of the body belong to no input"):
        read(model, data + b"xyz", length)
    with pytest.raises(RequestError, match="past the end"):
        read(model, data[:-1], length)


def test_the_response_is_json_or_binary_as_requested(model: ServableModel) -> None:
    request, _ = decode_infer(body(id="q", parameters={"binary_data_output": True}), None)
    packed = infer.response(model, "flights", request, "r", [0.25, 0.5])
    length = int(dict(packed.headers)["inference-header-content-length"])
    assert np.frombuffer(packed.body[length:], "<f4").tolist() == [0.25, 0.5]
    plain = json.loads(infer.response(model, "flights", Infer([]), "r", [0.25]).body)
    assert plain == {
        "model_name": "flights",
        "model_version": "7",
        "id": "r",
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [0.25]}],
    }


def test_features_are_decoded_by_the_vocabulary(model: ServableModel) -> None:
    row = EncodedRow(np.array([2, 1, 0, 4]).tobytes(), np.array([1.5, np.nan], np.float32).tobytes())
    assert msgspec.json.decode(msgspec.json.encode(infer.decode_features(model, row))) == {
        "carrier": "UA",
        "origin": "?",
        "hour": None,
        "month": "3",
        "distance": 1.5,
        "wind": None,
    }
