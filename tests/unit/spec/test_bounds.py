"""Every number of a spec has bounds, and one beyond them is refused by its path before anything starts."""

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from include.settings import ROOT
from include.spec.loading import load
from include.spec.model_spec import ModelSpec
from tests.unit.toy import toy

Location = tuple[str | int, ...]

#: Numbers that may be anything, with the reason.
UNBOUNDED = {
    "gates.behaviour.0.value": "a value of the user's column",
    "gates.behaviour.0.add": "in the unit of the user's column",
    "gates.bounds.any.min": "in the unit of a measured metric",
    "gates.bounds.any.max": "in the unit of a measured metric",
    "gates.metrics.any.min": "in the unit of the user's metric",
    "gates.metrics.any.max": "in the unit of the user's metric",
    "features.transforms.0.at.0": "in the unit of the user's column",
}
SCHEMA = ModelSpec.model_json_schema()


def leaves(schema: dict[str, Any], path: Location = ()) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Yield the path of every value that is no object and no list, with its schema."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", ()):
        yield from leaves(choice, path)
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, (*path, name))
    if isinstance(inner := schema.get("additionalProperties"), dict):
        yield from leaves(inner, (*path, "any"))
    for place, inner in enumerate(schema.get("prefixItems", ())):
        yield from leaves(inner, (*path, place))
    if "items" in schema:
        yield from leaves(schema["items"], (*path, 0))
    if schema.get("type") not in {None, "object", "array"}:
        yield path, schema


def dotted(path: Location) -> str:
    return ".".join(map(str, path))


NUMBERS = {dotted(path): (path, schema) for path, schema in leaves(SCHEMA) if schema["type"] in ("number", "integer")}
DURATIONS = {dotted(path): path for path, schema in leaves(SCHEMA) if schema.get("format") == "duration"}


def holding(path: Location, value: object) -> dict[str, Any]:
    """Return a spec's sections that hold the value at that path."""
    for step in reversed(path):
        value = {step: value} if isinstance(step, str) else [0.5] * step + [value]
    assert isinstance(value, dict)
    return value


def errors_of(sections: dict[str, Any]) -> list[str]:
    """Return the paths of what is wrong with these sections of a spec."""
    try:
        toy(**sections)
    except ValidationError as invalid:
        return [dotted(error["loc"]) for error in invalid.errors()]
    return []


def just_beyond(schema: dict[str, Any]) -> Iterator[float]:
    """Yield numbers that the bounds exclude, as near as they come."""
    whole = schema["type"] == "integer"
    if (least := schema.get("minimum")) is not None:
        yield least - 1 if whole else math.nextafter(least, -math.inf)
    if (greatest := schema.get("maximum")) is not None:
        yield greatest + 1 if whole else math.nextafter(greatest, math.inf)
    yield from (schema[name] for name in ("exclusiveMinimum", "exclusiveMaximum") if name in schema)


def test_there_are_numbers_and_durations_to_check() -> None:
    assert {"rollout.steps.0.weight", "training.kubernetes.nodes", "gates.min_auc"} <= set(NUMBERS)
    assert {"label_delay", "rollout.steps.0.hold", "features.aggregates.groups.0.over.0"} <= set(DURATIONS)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_every_number_has_bounds_and_one_beyond_them_is_named_by_its_path(name: str) -> None:
    path, schema = NUMBERS[name]
    beyond = list(just_beyond(schema))
    assert bool(beyond) != (name in UNBOUNDED), f"{name} needs a bound, or a reason to have none"
    for number in (*beyond, math.nan, math.inf):
        assert any(error.startswith(name) for error in errors_of(holding(path, number))), number


@pytest.mark.parametrize("name", sorted(DURATIONS))
def test_every_duration_is_read_as_people_write_it_and_none_is_negative(name: str) -> None:
    assert name not in errors_of(holding(DURATIONS[name], "90s"))
    for text in ("-PT1S", "90 seconds and a bit", "99999999999d"):
        assert name in errors_of(holding(DURATIONS[name], text)), text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"rollout": {"steps": [{"weight": 300}]}},
            "rollout.steps.0.weight: Input should be less than or equal to 100",
        ),
        (
            {"rollout": {"steps": [{"weight": -5}]}},
            "rollout.steps.0.weight: Input should be greater than or equal to 1",
        ),
        ({"rollout": {"steps": []}}, "rollout.steps: Tuple should have at least 1 item"),
        (
            {"rollout": {"steps": [{"weight": 50}, {"weight": 10}, {"weight": 100}]}},
            "rollout.steps: the weights must rise",
        ),
        ({"rollout": {"steps": [{"weight": 100}, {"weight": 100}]}}, "rollout.steps: the weights must rise"),
        ({"rollout": {"steps": [{"weight": 10}]}}, "rollout.steps: the last step must have weight 100"),
        ({"rollout": {"guards": {"confidence": 2}}}, "rollout.guards.confidence: Input should be less than 1"),
        ({"gates": {"min_auc": 7}}, "gates.min_auc: Input should be less than or equal to 1"),
        ({"gates": {"bounds": {"p99_ms": {"min": 9, "max": 3}}}}, "gates.bounds.p99_ms: the least, 9, is above"),
        (
            {"gates": {"metrics": {"own": {"of": "a:b", "min": 9, "max": 3}}}},
            "gates.metrics.own: the least, 9, is above",
        ),
        (
            {"training": {"kubernetes": {"nodes": 0}}},
            "training.kubernetes.nodes: Input should be greater than or equal",
        ),
        ({"training": {"search": {"dropout": [0.5, 0.1]}}}, "training.search.dropout: the least, 0.5, is above"),
        ({"label_delay": "-P1D"}, "label_delay: Input should be greater than or equal to 0 seconds"),
        ({"features": {"aggregates": {"lead": "-PT2H"}}}, "features.aggregates.lead: Input should be greater than"),
        (
            {"validation": {"max_nulls_of": {"x": 1.5}}},
            "validation.max_nulls_of.x: Input should be less than or equal to 1",
        ),
        ({"validation": {"volume": [3, 1]}}, "validation.volume: the least, 3, is above the greatest, 1"),
        ({"watch": {"drift": {"windows_needed": 4}}}, "watch.drift: windows_needed: 4 of the last 3 can never be"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_path(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as invalid:
        toy(**sections)
    lines = [
        f"{dotted(error['loc'])}: {error['msg'].removeprefix('Value error, ')}" for error in invalid.value.errors()
    ]
    assert any(line.startswith(message) for line in lines), lines


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("include/models/*.yaml"), *ROOT.glob("docs/models/*.yaml")]), ids=str
)
def test_every_shipped_spec_lies_within_the_bounds(path: Path) -> None:
    assert load(path).name == yaml.safe_load(path.read_text())["name"]


def test_what_only_looks_like_a_duration_stays_a_text() -> None:
    spec = toy(training={"kubernetes": {"cpu": "500m", "grace": "90s"}})
    assert spec.training.kubernetes.cpu == "500m"
    assert spec.training.kubernetes.grace == timedelta(seconds=90)
