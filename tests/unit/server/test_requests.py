"""Heads that are known again: which are, and which must be parsed each time."""

import pytest

from include.server.requests import KEPT, SHORT, Head, Heads, Request

SENT = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
HEAD = Head("POST", "/predict", {b"host": b"x", b"content-length": b"2"})


def request(body: bytes = b"{}", last: bool = False, **headers: bytes) -> Request:
    own = {name.encode(): value for name, value in headers.items()}
    made = Request(HEAD._replace(headers=HEAD.headers | own), last, lambda *_: None)
    made.body = body
    return made


def test_a_head_is_known_again_with_whatever_body_of_its_length() -> None:
    heads = Heads()
    assert heads.find(SENT + b"{}") is None
    heads.keep(SENT + b"{}", request())
    assert heads.find(SENT + b"[]") == (HEAD, b"[]")
    for other in (SENT, SENT + b"{", SENT + b"{} ", SENT + b"{}" + SENT + b"{}", SENT[:-1], SENT.lower() + b"{}", b""):
        assert heads.find(other) is None


@pytest.mark.parametrize(
    ("data", "parsed"),
    [(SENT + b"{}", request(last=True)), (SENT + b"{}", request(expect=b"100-continue")),
     (SENT + b"2\r\n{}\r\n0\r\n\r\n", request()), (SENT.replace(b"x", b"x" * SHORT) + b"{}", request())],
)  # fmt: skip
def test_what_is_told_by_more_than_its_head_or_is_long_is_parsed_each_time(data: bytes, parsed: Request) -> None:
    heads = Heads()
    heads.keep(data, parsed)
    assert heads.find(data) is None


def test_callers_whose_heads_all_differ_fill_no_memory() -> None:
    heads = Heads()
    sent = [SENT.replace(b"x", str(n).encode()) + b"{}" for n in range(3 * KEPT)]
    for data in sent:
        heads.keep(data, request())
    assert sum(heads.find(data) is not None for data in sent) <= KEPT
    assert heads.find(sent[-1]) is not None
