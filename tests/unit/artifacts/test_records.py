"""Records of releases before are read, and written again to the same byte; a wrong field is named with its file."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import GRAPH, ModelManifest
from include.artifacts.store import Reference
from include.artifacts.verdict_record import VerdictRecord
from include.domain.errors import Corrupt
from include.domain.verdict import Outcome
from tests.records import dataset_manifest, model_manifest

#: As the release before typed records wrote them.
RECORDS = Path(__file__).parent / "records"
KINDS = {
    "dataset.json": DatasetManifest,
    "manifest.json": ModelManifest,
    "evaluation.json": EvaluationRecord,
    "verdict.json": VerdictRecord,
}


@pytest.mark.parametrize("name", KINDS)
def test_an_old_record_is_written_again_to_the_same_byte(name: str) -> None:
    text = (RECORDS / name).read_text()
    assert store.encode(store.load(RECORDS / name, KINDS[name])) == text


def test_the_fields_of_old_records_have_their_types() -> None:
    dataset = store.load(RECORDS / "dataset.json", DatasetManifest)
    assert dataset.columns.aggregates.lead == timedelta(hours=2)
    assert dataset.windows.test == ("2026-01-10", "2026-01-11", "2026-01-12")
    evaluation = store.load(RECORDS / "evaluation.json", EvaluationRecord)
    estimate = evaluation.metrics["challenger"]["brier"]
    assert estimate.low < estimate.value < estimate.high
    verdict = store.load(RECORDS / "verdict.json", VerdictRecord)
    assert verdict.verdict.outcome is verdict.outcome is Outcome.FAIL
    assert verdict.slices[0].column == "c"


def test_a_manifest_of_before_the_int8_graph_names_the_only_graph() -> None:
    content = json.loads((RECORDS / "manifest.json").read_text())
    for name in ("graph", "int8", "serving", "curves"):
        content.pop(name)
    content["columns"].pop("aggregates")
    manifest = store.decode(json.dumps(content).encode(), ModelManifest, "manifest.json")
    assert (manifest.graph, manifest.serving.log_share, manifest.columns.aggregates.groups) == (GRAPH, 1.0, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "seventeen"}, r"manifest\.json: not a ModelManifest: Expected `int`, got `str` - at `\$\.seed`"),
        ({"columns": {"time": "at"}}, r"missing required field `label` - at `\$\.columns`"),
        ({"format": 2}, "format 2; this code reads format 1"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads(store.encode(model_manifest())) | change
    reference = store.write(tmp_path / "manifest.json", content)
    with pytest.raises(Corrupt, match=message):
        store.read(reference, ModelManifest)


def test_a_file_that_is_no_json_or_gone_or_changed_is_corrupt(tmp_path: Path) -> None:
    reference = store.write(tmp_path / "dataset.json", dataset_manifest())
    assert store.read(reference, DatasetManifest) == dataset_manifest()
    with pytest.raises(Corrupt, match="it was changed since"):
        store.read(Reference(reference.uri, "0" * 64), DatasetManifest)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(Corrupt, match=r"dataset\.json: not a DatasetManifest"):
        store.load(tmp_path / "dataset.json", DatasetManifest)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(Corrupt, match="cannot be read"):
        store.read(reference, DatasetManifest)


@pytest.mark.parametrize("hours", [0, 1, 1.5, 24, 25, 168, 1 / 3600, 0.5 / 3600])
def test_durations_are_written_as_the_spec_writes_them(hours: float) -> None:
    span = timedelta(hours=hours)
    assert json.loads(store.encode({"span": span}))["span"] == TypeAdapter(timedelta).dump_python(span, mode="json")
