"""A spec is checked whole: every error at once, by its path, and one bad file hides no other model."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from include.domain.errors import UserMistake
from include.domain.windows import Window, parse_utc
from include.settings import ROOT
from include.spec.data import SourceSpec
from include.spec.loading import find, load, load_all
from include.spec.model_spec import ModelSpec

MINIMAL = {
    "name": "churn",
    "description": "Will this subscriber leave?",
    "source": {"path": "inbox/churn/*.csv", "format": "csv"},
    "columns": {"time": "seen_at", "label": "left", "keys": ["subscriber"], "numeric": ["spend"]},
    "schedule": {"start": "2026-01-01T00:00:00Z"},
}


def write(folder: Path, name: str, **changes: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "name": name, **changes}))
    return path


def test_a_time_a_label_a_key_and_a_feature_are_enough(tmp_path: Path) -> None:
    spec = load(write(tmp_path, "churn"))
    assert spec.training.seed == 17
    assert spec.approval.mode == "person"


def test_what_kubernetes_reads_keeps_its_own_units(tmp_path: Path) -> None:
    section = {"cpu": "500m", "node_selector": {"pool": "2h"}, "grace": "90s"}
    pods = load(write(tmp_path, "churn", training={"kubernetes": section})).training.kubernetes
    assert (pods.cpu, pods.node_selector, pods.grace) == ("500m", {"pool": "2h"}, timedelta(seconds=90))


def test_the_shipped_specs_are_valid() -> None:
    specs, errors = load_all()
    assert not errors
    assert {"flights", "clicks"} <= {spec.name for spec in specs}


def test_durations_read_as_people_write_them(tmp_path: Path) -> None:
    spec = load(
        write(tmp_path, "churn", label_delay="30d", rollout={"steps": [{"weight": 10, "hold": "90s"}, {"weight": 100}]})
    )
    assert spec.label_delay == timedelta(days=30)
    assert spec.rollout.steps[0].hold == timedelta(seconds=90)


def test_every_error_is_named_by_its_path_in_one_message(tmp_path: Path) -> None:
    columns = {"time": "t", "keys": ["k"], "numeric": ["x"], "zone": "Mars/Olympus"}
    path = write(tmp_path, "churn", columns=columns, gates={"min_acu": 0.7}, training={"epochs": 0}, colour="red")
    with pytest.raises(UserMistake) as caught:
        load(path)
    message = str(caught.value)
    for expected in (
        "columns.label: Field required",
        "gates.min_acu: unknown key",
        "training.epochs",
        "colour: unknown key",
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"numeric": ["x", "y"], "label": "y"}, "named more than once: y"),
        ({"numeric": []}, "at least one numeric or categorical"),
        ({"zone": "Mars/Olympus"}, "not a time zone"),
        ({"keys": []}, "columns.keys"),
    ],
)
def test_columns_must_make_sense(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    base: dict[str, object] = {"time": "t", "label": "y", "keys": ["k"], "numeric": ["x"]}
    with pytest.raises(UserMistake, match=message):
        load(write(tmp_path, "churn", columns=base | columns))


def test_a_gate_on_what_there_is_not_is_named_by_its_path(tmp_path: Path) -> None:
    gates = {
        "metrics": {"brier": {"of": "brier"}},
        "bounds": {"lift": {"min": 2}},
        "baselines": ["logistic", "oracle"],
        "slices": {"by": ["spend", "shoe_size"]},
    }
    with pytest.raises(UserMistake) as caught:
        load(write(tmp_path, "churn", gates=gates))
    for expected in (
        "gates.bounds: lift",
        "gates.baselines: oracle",
        "gates.slices.by: shoe_size",
    ):
        assert f"{expected} is not known" in str(caught.value)
    assert "gates.metrics.brier.of: brier is no function's name" in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "a: [unclosed", "\xff"])
def test_what_is_no_mapping_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserMistake, match=r"^odd\.yaml: "):
        load(path)


def test_a_bad_file_hides_no_other_model(tmp_path: Path) -> None:
    write(tmp_path, "good")
    write(tmp_path, "bad", colour="red")
    specs, errors = load_all(tmp_path)
    assert [spec.name for spec in specs] == ["good"]
    assert "bad.yaml" in str(errors[0])


def test_two_models_cannot_share_a_name(tmp_path: Path) -> None:
    write(tmp_path, "churn")
    (tmp_path / "copy.yaml").write_text((tmp_path / "churn.yaml").read_text())
    specs, errors = load_all(tmp_path)
    assert len(specs) == 1
    assert "another file already holds a model named churn" in str(errors[0])


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "churn")
    with pytest.raises(UserMistake, match="no valid model named chrun; there are: churn"):
        find("chrun", tmp_path)


def test_the_digest_changes_with_a_value_and_not_with_a_default_written_out(tmp_path: Path) -> None:
    plain = load(write(tmp_path, "churn"))
    spelled = load(write(tmp_path, "churn", window="day"))
    other = load(write(tmp_path, "churn", window="hour"))
    assert plain.digest == spelled.digest != other.digest


def test_the_schema_in_the_docs_is_the_code_s() -> None:
    written = json.loads((ROOT / "docs" / "spec.schema.json").read_text())
    assert written == json.loads(json.dumps(ModelSpec.model_json_schema())), "run make schema"


def test_a_trigger_that_is_no_signal_is_named_and_a_simple_check_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        UserMistake, match=r"retraining\.triggers: ks is no signal; there are age, .*; retraining\.blocks: speed"
    ):
        load(write(tmp_path, "churn", watch={"retraining": {"triggers": ["ks"], "blocks": ["speed"]}}))
    section = {"simple": {"checks": ["ks"]}, "retraining": {"triggers": ["ks"]}}
    assert load(write(tmp_path, "churn", watch=section)).watch.retraining.triggers == ("ks",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"path": "day_{n}"}}, r"source: \{n\} in the path counts windows"),
        ({"columns": {"added": {"spend": "place"}}}, "added: spend: place: `window` can only be the time"),
        ({"columns": {"added": {"subscriber": "window"}}}, "added: subscriber: window: `window` can only be the time"),
        ({"columns": {"added": {"seen_at": "window"}}}, "a window is the time only where source.path has"),
    ],
)
def test_columns_can_be_added_only_where_they_mean_something(
    tmp_path: Path, changes: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(UserMistake, match=message):
        load(write(tmp_path, "churn", **{name: {**MINIMAL[name], **change} for name, change in changes.items()}))  # type: ignore[dict-item]


def test_a_window_s_number_counts_from_the_first() -> None:
    source = SourceSpec(path="day_{n}.gz", first=datetime(2024, 1, 1))  # a time without a zone is UTC
    day = parse_utc("2024-02-01")
    assert source.by_window
    assert source.path_of(Window(day, day + timedelta(days=1))) == "day_31.gz"
    assert source.path_of(Window(day, day + timedelta(hours=1))) == "day_744.gz"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "inbox/churn", "connection": "lake"}, "source: connection: inbox/churn needs none"),
        ({"path": "s3://lake/*", "format": "delta"}, r"source: path: s3://lake/\*: a Delta table is one folder"),
    ],
)
def test_a_source_that_contradicts_itself(tmp_path: Path, source: dict[str, str], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        load(write(tmp_path, "churn", source=source))
