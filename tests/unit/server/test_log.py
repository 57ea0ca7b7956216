"""The prediction log on a real disk: every row that is added is written, or counted as lost."""

import json
from pathlib import Path

from include.server.log import MAX_WAITING, PredictionLog, Scored
from include.server.metrics import Metrics
from include.server.model import Limits, Model, Named, load
from include.server.rows import Encoded
from tests.serving import rows, write_artifact


def lines(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for segment in sorted(folder.glob("*.jsonl")) for line in segment.read_bytes().splitlines()
    ]


def test_every_row_is_a_line_and_what_may_not_wait_is_dropped_and_counted(tmp_path: Path) -> None:
    model = load(Named("1", write_artifact(tmp_path / "run")["artifact_uri"], None), Limits())
    metrics = Metrics("stable", "toy")
    log = PredictionLog(tmp_path / "log", "stable", metrics)
    encoded = [model.rows.example(row) for row in rows(700)]
    log.add(model, 1.0, [Scored(f"r{n}", row, n / 700, 2.0) for n, row in enumerate(encoded)])
    long = Encoded(encoded[0].ids, encoded[0].numbers, encoded[0].values, b'{"note":"' + b"x" * (1 << 20) + b'"}')
    wide = Encoded(bytes(1 << 20), encoded[0].numbers, encoded[0].values, encoded[0].said)
    many = (MAX_WAITING >> 20) + 1
    for row in (long, wide):
        log.add(model, 2.0, [Scored(f"too much {n}", row, 0.5, 2.0) for n in range(many)])
    log.close()
    assert metrics.logged.values == {("written",): 700, ("lost",): 2 * many}
    written = lines(tmp_path / "log")
    assert [line["id"] for line in written] == [f"r{n}" for n in range(700)]
    assert [line["features"] for line in written] == [_said(model, row) for row in encoded]
    assert sum(map(sum, metrics.scores.counts.values())) == 700, "what is not written is not counted either"


def _said(model: Model, row: Encoded) -> dict[str, object]:
    said: dict[str, object] = json.loads(bytes(model.rows.logged(row)))
    return said
