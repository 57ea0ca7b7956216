import asyncio
import json
from pathlib import Path

import pytest

from include.server.feedback import FeedbackLog, read_labels
from include.server.responses import RequestError


def test_labels_are_lines_once_append_has_returned(tmp_path: Path) -> None:
    async def send() -> list[int]:
        feedback = FeedbackLog(tmp_path)
        one = await feedback.append(b'{"request_id": "a-1", "label": 1}')
        two = await feedback.append(b'{"labels": [{"key": "UA|1", "label": 0}, {"key": "UA|2", "label": 1}]}')
        return [one, two]

    assert asyncio.run(send()) == [1, 2]
    (segment,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in segment.read_text().splitlines()]
    assert [(x["id"], x["key"], x["label"]) for x in lines] == [("a-1", None, 1), (None, "UA|1", 0), (None, "UA|2", 1)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"label": 1}', "request_id"),
        (b'{"label": 1, "key": "a", "request_id": "b"}', "request_id"),
        (b'{"key": "a"}', "label"),
        (b'{"key": "a", "label": 2}', "label"),
        (b'{"key": "", "label": 1}', "key"),
        (b'{"labels": []}', "labels"),
        (b'{"labels": [{"key": 1, "label": 1}]}', "labels[0].key"),
        (b"1", None),
    ],
)
def test_wrong_labels_are_refused_by_field(body: bytes, field: str | None) -> None:
    with pytest.raises(RequestError) as error:
        read_labels(body)
    assert (error.value.status, error.value.field) == (400, field)


def test_labels_that_cannot_be_written_are_refused_with_503(tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("a file where the folder should be")
    with pytest.raises(RequestError) as error:
        asyncio.run(FeedbackLog(tmp_path / "feedback").append(b'{"key": "a", "label": 1}'))
    assert error.value.status == 503
