import asyncio
import json
from pathlib import Path

import pytest

from include.server.answers import Refused
from include.server.feedback import Feedback, read


def test_labels_are_lines_once_they_are_taken(tmp_path: Path) -> None:
    async def send() -> list[int]:
        feedback = Feedback(tmp_path)
        one = await feedback.take(b'{"request_id": "a-1", "label": 1}')
        two = await feedback.take(b'{"labels": [{"key": "UA|1", "label": 0}, {"key": "UA|2", "label": 1}]}')
        return [one, two]

    assert asyncio.run(send()) == [1, 2]
    (segment,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in segment.read_text().splitlines()]
    assert [(x["id"], x["key"], x["label"]) for x in lines] == [("a-1", None, 1), (None, "UA|1", 0), (None, "UA|2", 1)]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b'{"label": 1}', "request_id"), (b'{"label": 1, "key": "a", "request_id": "b"}', "request_id"),
     (b'{"key": "a"}', "label"), (b'{"key": "a", "label": 2}', "label"), (b'{"key": "", "label": 1}', "key"),
     (b'{"labels": []}', "labels"), (b'{"labels": [{"key": 1, "label": 1}]}', "labels[0].key"), (b"1", None)],
)  # fmt: skip
def test_wrong_labels_are_refused_by_field(body: bytes, field: str | None) -> None:
    with pytest.raises(Refused) as refused:
        read(body)
    assert (refused.value.status, refused.value.field) == (400, field)


def test_a_disk_that_takes_nothing_is_said_as_503(tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("a file where the folder should be")
    with pytest.raises(Refused) as refused:
        asyncio.run(Feedback(tmp_path / "feedback").take(b'{"key": "a", "label": 1}'))
    assert refused.value.status == 503
