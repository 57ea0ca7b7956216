"""Hostile input: nothing may crash the server, hang it, or make it answer with a 5xx other than 503."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.core.result import Ok

from tests.serving import ROW, ServerProcess, rows, wait_for, write_artifact


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    uri = write_artifact(folder / "run")["artifact_uri"]
    server = ServerProcess(folder, "--slot", "stable", "--artifact", uri, "--body-seconds", "0.5")
    yield server
    assert server.predict(ROW)["version"] == "0"
    assert server.stop() == 0


#: schemathesis' checks of responses. Its checks of requests are left out: they take a body for valid that breaks a rule which
#: the schema cannot express (a text must be a number, a label names its row once).
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY_ROWS = st.fixed_dictionaries({}, optional={name: st.just(value) | JSON for name, value in ROW.items()})
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["ids", "numbers", "score", ""]) | JSON,
        "shape": st.lists(st.integers(-2, 5), max_size=3) | JSON,
        "datatype": st.sampled_from(["INT64", "FP32", "FP64", "BYTES"]) | JSON,
        "data": st.lists(st.integers(-1, 9) | st.floats(), max_size=9) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-9, 99)}) | JSON,
    },
)
BODIES = st.one_of(
    st.binary(max_size=200),
    (
        JSON
        | NEARLY_ROWS
        | st.fixed_dictionaries({"rows": st.lists(NEARLY_ROWS, max_size=3) | JSON})
        | st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=3) | JSON})
    ).map(lambda value: json.dumps(value).encode()),
)
PATHS = st.sampled_from(["/predict", "/v2/models/flights/infer", "/feedback"])


LENGTHS = st.none() | st.integers(-5, 300).map(str)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(PATHS, BODIES, LENGTHS), min_size=20, max_size=20))
def test_ten_thousand_made_up_bodies_get_an_answer_that_says_why(
    server: ServerProcess, sent: list[tuple[str, bytes, str | None]]
) -> None:
    caller = HTTPConnection("127.0.0.1", server.port, timeout=20)
    for path, body, length in sent:
        caller.request("POST", path, body, {} if length is None else {"inference-header-content-length": length})
        answer = caller.getresponse()
        content = answer.read()
        assert answer.status in (200, 400, 413), (answer.status, content, body)
        assert answer.status == 200 or json.loads(content)["error"]
    caller.close()


def test_every_route_answers_as_its_openapi_description_says(server: ServerProcess) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    paths = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        paths.append(operation.path)

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        check()
    assert {"/predict", "/feedback", "/v2/models/flights/infer", "/metrics"} <= set(paths)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("POST", "/status", 405),
        ("PUT", "/v2", 405),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/flights/versions/9", 404),
        ("GET", "/v2/models/flights/versions/0", 200),
        ("GET", "/v2/models/flights/versions/0/ready", 200),
        ("GET", "/v2/models/flights/versions/", 404),
        ("GET", "/v2/models/flights/ready", 200),
        ("GET", "/v2", 200),
        ("GET", "/v2/models/flights", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/%ff%00", 404),
        ("GET", "/" + "x" * 5000, 404),
    ],
)
def test_routes(server: ServerProcess, method: str, path: str, status: int) -> None:
    assert server.http.request(method, path).status_code == status


def test_openapi_names_the_columns_of_the_version_served(server: ServerProcess) -> None:
    row = server.http.get("/openapi.json").json()["components"]["schemas"]["Row"]
    assert set(row["properties"]) == set(ROW)
    assert set(row["required"]) == set(ROW) - {"flight"}


def test_a_body_too_long_is_refused_before_it_is_read(server: ServerProcess) -> None:
    answer = server.http.post("/predict", content=b'{"rows": [' + b" " * 10_000_000 + b"]}")
    assert answer.status_code == 413
    chunks = (b" " * 65536 for _ in range(160))
    with suppress(httpx.WriteError):  # the server may hang up on a body it has refused
        assert server.http.post("/predict", content=chunks).status_code == 413


def test_a_compressed_body_is_refused(server: ServerProcess) -> None:
    answer = server.http.post("/predict", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"][:16]) == (415, "content-encoding")


def send(server: ServerProcess, *parts: bytes) -> bytes:
    """Return all that the server sends after these bytes on a new connection, until it closes it."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as caller:
        for part in parts:
            caller.sendall(part)
        return b"".join(iter(lambda: caller.recv(65536), b""))


def post(path: str, body: bytes = json.dumps(ROW).encode(), *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_requests_sent_ahead_are_answered_in_their_order(server: ServerProcess) -> None:
    bodies = [json.dumps(row).encode() for row in rows(50)]
    ids = [f"x-request-id: call-{n}" for n in range(50)]
    sent = b"".join(post("/predict", body, one) for body, one in zip(bodies, ids, strict=True))
    answers = send(server, sent + post("/nothing") + post("/predict", b"{}", "connection: close"))
    places = [answers.index(f'"request_id":"call-{n}"'.encode()) for n in range(50)]
    assert places == sorted(places)
    assert answers.count(b"HTTP/1.1 200 OK") == 50
    assert places[-1] < answers.index(b"HTTP/1.1 404") < answers.index(b"HTTP/1.1 400")


def test_a_request_with_a_cached_head_gets_its_own_answer(server: ServerProcess) -> None:
    near, far = (post("/predict", json.dumps({**ROW, "distance": miles}).encode()) for miles in (200, 900))
    start = near.index(b"{")
    assert near[:start] == far[:start]
    scores = [server.predict({**ROW, "distance": miles})["scores"] for miles in (200, 900)]
    assert scores[0] != scores[1]
    for cut in (1, start - 1, start, start + 1, len(far) - 1, len(far)):
        with socket.create_connection(("127.0.0.1", server.port), 20) as caller:
            for sent, expected_row in (
                ([near], 0),
                ([far], 1),
                ([far[:cut], far[cut:] + near[:cut]], 1),
                ([near[cut:]], 0),
            ):
                for part in sent:
                    caller.sendall(part)
                body = caller.recv(65536).partition(b"\r\n\r\n")[2]
                assert json.loads(body)["scores"] == scores[expected_row]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 400_000, 431),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400),
        (post("/predict", b"", "transfer-encoding: chunked"), 400),
    ],
)
def test_what_is_not_http_as_it_should_be_is_told_so_and_hung_up_on(
    server: ServerProcess, sent: bytes, status: int
) -> None:
    assert send(server, sent).startswith(b"HTTP/1.1 %d " % status)


def test_a_body_that_waits_for_leave_gets_it(server: ServerProcess) -> None:
    head, mark, body = post(
        "/predict", json.dumps(ROW).encode(), "expect: 100-continue", "connection: close"
    ).partition(b"\r\n\r\n")
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", server.port), 20) as caller:
            caller.sendall(head + mark)
            assert caller.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.sendall(body)
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_an_offer_to_upgrade_the_protocol_is_answered_in_http_1_1(server: ServerProcess) -> None:
    for _ in range(2):
        answers = send(server, b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        assert answers.startswith(b"HTTP/1.1 200 OK") and answers.count(b"HTTP/1.1") == 1


def test_the_response_to_head_has_no_body(server: ServerProcess) -> None:
    answers = send(server, b"HEAD /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 405") and answers.endswith(b"\r\n\r\n")


def test_half_sent_requests_get_408_and_stop_no_others(server: ServerProcess) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in range(50)]
        for connection in slow:
            connection.sendall(head + b'{"rows"')
        assert server.predict(ROW)["version"] == "0"
        assert all(b"HTTP/1.1 408" in connection.recv(4096) for connection in slow)
    wait_for(lambda: server.status()["under_way"] == 1, "the half-sent requests to be given up")


def test_callers_that_hang_up_leave_nothing_behind(server: ServerProcess) -> None:
    body = json.dumps({"rows": rows(50)}).encode()
    for cut in (0, 10, len(body)):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), 20) as caller:
                caller.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
                caller.sendall(body[:cut])
    wait_for(lambda: server.status()["under_way"] == 1, "the requests of callers gone to be given up")


def test_a_thousand_idle_connections_stop_nobody(server: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
        assert server.predict(ROW)["version"] == "0"


def test_more_requests_than_allowed_are_refused_for_a_second(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    server = ServerProcess(tmp_path, "--slot", "stable", "--artifact", uri, "--max-requests", "2")
    try:
        with ExitStack() as stack:
            for _ in range(2):
                waiting = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
                waiting.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
            wait_for(lambda: server.status()["under_way"] == 3, "two requests under way")
            refused = server.http.post("/predict", json=ROW)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert server.http.get("/v2/health/ready").status_code == 200
        wait_for(lambda: server.status()["under_way"] == 1, "them to be given up")
        with ThreadPoolExecutor(2) as callers:
            assert all(callers.map(lambda _: server.predict(ROW)["version"] == "0", range(20)))
    finally:
        server.close()


def test_with_a_token_only_its_bearers_may_post(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    (tmp_path / "token").write_text("s3cret\n")
    server = ServerProcess(tmp_path, "--slot", "stable", "--artifact", uri, "--token-file", str(tmp_path / "token"))
    try:
        for sent in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
            assert server.http.post("/predict", json=ROW, headers=sent).status_code == 401
        assert server.predict(ROW, authorization="Bearer s3cret")["version"] == "0"
    finally:
        server.close()
