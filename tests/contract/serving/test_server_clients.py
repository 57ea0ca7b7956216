"""The clients of Triton, over HTTP and over gRPC, and of KServe against the real server."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.serving import ENCODING, ServerProcess, expected, free_port, rows, wait_for, write_artifact

#: KServe does not fit into this environment; `make bench-serve` makes one for it.
KSERVE = Path(tempfile.gettempdir()) / "perennial-peers" / "kserve" / "bin" / "python"
ROWS = rows(40)
TOKEN = {"Authorization": "Bearer open sesame"}


@pytest.fixture(scope="module")
def rpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, rpc_port: int) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text("open sesame")
    uri = write_artifact(folder / "run")["artifact_uri"]
    flags = (
        "--artifact",
        uri,
        "--grpc-port",
        str(rpc_port),
        "--token-file",
        str(folder / "token"),
        "--body-seconds",
        "1",
    )
    server = ServerProcess(folder, "--slot", "stable", *flags)
    yield server
    assert server.stop() == 0


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: ServerProcess, rpc_port: int) -> Iterator[Any]:
    kind, port = (triton_http, server.port) if request.param == "http" else (triton_grpc, rpc_port)
    with kind.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.kind = kind
        yield client


def inputs(triton: Any, sent: list[dict[str, Any]]) -> list[Any]:
    ids, numbers = ENCODING.encode({name: [row[name] for row in sent] for name in sent[0]})
    tensors = []
    for name, values, datatype in (("ids", ids, "INT64"), ("numbers", numbers, "FP32")):
        tensors.append(triton.InferInput(name, list(values.shape), datatype))
        tensors[-1].set_data_from_numpy(values)
    return tensors


def headers(client: Any) -> dict[str, str]:
    """Return a new dictionary each time, because the client adds to it; metadata of gRPC is in lower case."""
    return {(k.lower() if client.kind is triton_grpc else k): v for k, v in TOKEN.items()}


def test_the_client_reads_the_metadata_and_whether_the_model_is_ready(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("flights")
    assert client.is_model_ready("flights", "0")
    assert not client.is_model_ready("flights", "9") and not client.is_model_ready("other")
    options = {"as_json": True} if client.kind is triton_grpc else {}
    model = client.get_model_metadata("flights", **options)
    assert [tensor["name"] for tensor in model["inputs"]] == ["ids", "numbers"]
    assert [int(n) for n in model["inputs"][0]["shape"]] == [-1, 4]
    assert client.get_server_metadata(**options)["name"] == "perennial"


def test_scores_are_those_of_the_model(client: Any) -> None:
    outputs = [client.kind.InferRequestedOutput("score")]
    answer = client.infer(
        "flights", inputs(client.kind, ROWS), outputs=outputs, request_id="mine", headers=headers(client)
    )
    assert answer.as_numpy("score") == pytest.approx([expected(row) for row in ROWS], abs=1e-5)
    response = answer.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "mine"


def test_an_error_names_what_is_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="numbers: this input is missing"):
        client.infer("flights", inputs(client.kind, ROWS)[:1], headers=headers(client))
    with pytest.raises(InferenceServerException, match="authorization"):
        client.infer("flights", inputs(client.kind, ROWS))


def test_grpc_requests_are_logged_and_counted_like_others(server: ServerProcess, rpc_port: int) -> None:
    before = len(server.logged())
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{rpc_port}") as client:
        client.infer(
            "flights",
            inputs(triton_grpc, ROWS[:2]),
            request_id="grpc",
            headers={"authorization": TOKEN["Authorization"]},
        )
    lines = wait_for(lambda: [x for x in server.logged()[before:] if x["id"].startswith("grpc-")], "the lines")
    assert [line["id"] for line in lines] == ["grpc-0", "grpc-1"]
    assert (
        server.metric('perennial_requests_total{slot="stable",model="flights",route="grpc/ModelInfer",code="200"') > 0
    )


def test_typed_contents_are_as_good_as_raw_bytes_and_hostile_ones_are_refused(
    rpc_port: int, server: ServerProcess
) -> None:
    ids, numbers = ENCODING.encode({name: [ROWS[0][name]] for name in ROWS[0]})
    request = service_pb2.ModelInferRequest(model_name="flights")
    request.inputs.add(name="ids", datatype="INT64", shape=[1, 4]).contents.int64_contents.extend(ids[0].tolist())
    request.inputs.add(name="numbers", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend(numbers[0].tolist())
    metadata = [("authorization", TOKEN["Authorization"])]
    with grpc.insecure_channel(f"127.0.0.1:{rpc_port}") as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        answer = infer(request, metadata=metadata)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4")[0] == pytest.approx(expected(ROWS[0]), abs=1e-5)
        for spoil in (
            lambda r: r.inputs[0].shape.append(7),
            lambda r: setattr(r.inputs[0], "datatype", "BYTES"),
            lambda r: r.raw_input_contents.append(b"x"),
            lambda r: setattr(r.inputs[0], "name", "other"),
            lambda r: r.inputs[0].contents.int64_contents.append(3),
            lambda r: r.inputs.pop(),
        ):
            spoiled = service_pb2.ModelInferRequest()
            spoiled.CopyFrom(request)
            spoil(spoiled)
            with pytest.raises(grpc.RpcError) as refused:
                infer(spoiled, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.value.details()


@pytest.mark.skipif(not KSERVE.exists(), reason="KServe is not installed; make bench-serve installs it")
def test_the_client_of_kserve_gets_the_same_scores_as_json_and_as_binary_tensors(server: ServerProcess) -> None:
    ids, numbers = ENCODING.encode({name: [row[name] for row in ROWS] for name in ROWS[0]})
    request = {"ids": ids.tolist(), "numbers": np.nan_to_num(numbers).tolist(), "token": TOKEN["Authorization"]}
    command = [str(KSERVE), str(Path(__file__).with_name("kserve_client.py")), str(server.port)]
    client = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=False, timeout=120
    )
    assert client.returncode == 0, client.stderr
    for scores in json.loads(client.stdout.splitlines()[-1]):
        assert scores == pytest.approx([expected(row) for row in ROWS], abs=1e-5)
