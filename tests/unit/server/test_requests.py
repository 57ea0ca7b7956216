"""The cache of heads: which requests it recognizes, and which must be parsed each time."""

import pytest

from include.server.requests import MAX_HEAD_BYTES, MAX_HEADS, HeadCache, Request, RequestHead

SENT = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
HEAD = RequestHead("POST", "/predict", {b"host": b"x", b"content-length": b"2"})


def request(body: bytes = b"{}", close: bool = False, **headers: bytes) -> Request:
    own = {name.encode(): value for name, value in headers.items()}
    parsed = Request(HEAD._replace(headers=HEAD.headers | own), close, lambda *_: None)
    parsed.body = body
    return parsed


def test_a_cached_head_is_recognized_with_any_body_of_its_length() -> None:
    cache = HeadCache()
    assert cache.split(SENT + b"{}") is None
    cache.add(SENT + b"{}", request())
    assert cache.split(SENT + b"[]") == (HEAD, b"[]")
    for other in (SENT, SENT + b"{", SENT + b"{} ", SENT + b"{}" + SENT + b"{}", SENT[:-1], SENT.lower() + b"{}", b""):
        assert cache.split(other) is None


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (SENT + b"{}", request(close=True)),
        (SENT + b"{}", request(expect=b"100-continue")),
        (SENT + b"2\r\n{}\r\n0\r\n\r\n", request()),
        (SENT.replace(b"x", b"x" * MAX_HEAD_BYTES) + b"{}", request()),
    ],
)
def test_requests_that_need_more_than_their_head_or_have_a_long_one_are_parsed_each_time(
    data: bytes, parsed: Request
) -> None:
    cache = HeadCache()
    cache.add(data, parsed)
    assert cache.split(data) is None


def test_callers_whose_heads_all_differ_fill_no_memory() -> None:
    cache = HeadCache()
    sent = [SENT.replace(b"x", str(n).encode()) + b"{}" for n in range(3 * MAX_HEADS)]
    for data in sent:
        cache.add(data, request())
    assert sum(cache.split(data) is not None for data in sent) <= MAX_HEADS
    assert cache.split(sent[-1]) is not None
