"""The prediction log on a real disk: every row that is added is written, or counted as lost."""

import json
from pathlib import Path

from include.server.prediction_log import MAX_PENDING, PredictionWriter, ScoredRow
from include.server.prometheus import Metrics
from include.server.rows import EncodedRow
from include.server.servable_model import LoadOptions, ServableModel, VersionReference, load_model
from tests.serving import rows, write_artifact


def lines(folder: Path) -> list[dict[str, object]]:
    segments = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines()]


def test_every_row_is_a_line_and_rows_that_may_not_wait_are_dropped_and_counted(tmp_path: Path) -> None:
    uri = write_artifact(tmp_path / "run")["artifact_uri"]
    model = load_model(VersionReference("1", uri, None), LoadOptions())
    metrics = Metrics("stable", "toy")
    log = PredictionWriter(tmp_path / "log", "stable", metrics)
    encoded = [model.rows.encode_example(row) for row in rows(700)]
    log.add(model, 1.0, [ScoredRow(f"r{n}", row, n / 700, 2.0) for n, row in enumerate(encoded)])
    first = encoded[0]
    long_json = EncodedRow(first.ids, first.numbers, first.values, b'{"note":"' + b"x" * (1 << 20) + b'"}')
    many_ids = EncodedRow(bytes(1 << 20), first.numbers, first.values, first.json)
    too_many = (MAX_PENDING >> 20) + 1
    for row in (long_json, many_ids):
        log.add(model, 2.0, [ScoredRow(f"too much {n}", row, 0.5, 2.0) for n in range(too_many)])
    log.close()
    assert metrics.log_rows.values == {("written",): 700, ("lost",): 2 * too_many}
    written = lines(tmp_path / "log")
    assert [line["id"] for line in written] == [f"r{n}" for n in range(700)]
    assert [line["features"] for line in written] == [_log_json(model, row) for row in encoded]
    assert sum(map(sum, metrics.scores.counts.values())) == 700, "what is not written is not counted either"


def _log_json(model: ServableModel, row: EncodedRow) -> dict[str, object]:
    return dict(json.loads(bytes(model.rows.log_json(row))))
