"""The counts of values on `/metrics`, against counting each value by itself."""

import re
from bisect import bisect_left
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from include.domain.features.encoding import FIRST_KNOWN, MISSING, UNKNOWN, Encoding
from include.server.model import Model
from include.server.values import EVERY_KNOT, NAMED, Values

KNOWN = [f"v{n:02}" for n in range(NAMED + 5)]
KNOTS = {"many": tuple(float(k) for k in range(40)), "one": (3.0,)}


def model(version: str = "1") -> Model:
    encoding = Encoding(
        time="at", zone="UTC", time_parts=(), categorical=("few", "kind"), numeric=tuple(KNOTS),
        vocabulary={"few": {"a": FIRST_KNOWN}, "kind": {v: i for i, v in enumerate(KNOWN, FIRST_KNOWN)}}, knots=KNOTS,
    )  # fmt: skip
    return cast(Model, SimpleNamespace(version=version, encoding=encoding, texts={"few": ["a"], "kind": KNOWN}))


def counted(values: Values, metric: str, **labels: Any) -> dict[str, float]:
    """The metric's lines with these labels, by what else they say."""
    found = {}
    for line in values.render('slot="stable"'):
        name, _, rest = line.partition("{")
        inside, _, value = rest.rpartition("} ")
        said = dict(re.findall(r'(\w+)="([^"]*)"', inside))
        if name == metric and labels.items() <= said.items():
            found[",".join(said[k] for k in ("kind", "value", "le") if k in said)] = float(value)
    return found


def test_every_value_is_counted_once_where_it_belongs() -> None:
    rng, values = np.random.default_rng(0), Values()
    ids = np.column_stack([rng.integers(0, FIRST_KNOWN + 1, 700), rng.integers(0, FIRST_KNOWN + len(KNOWN), 700)])
    numbers = rng.integers(-3, 45, (700, 2)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    for start in range(0, 700, 100):
        values.count(model(), ids[start : start + 100], numbers[start : start + 100])

    kinds = Counter(ids[:, 1].tolist())
    assert counted(values, "perennial_category_total", field="kind") == {
        **{text: kinds[i] for i, text in enumerate(KNOWN[:NAMED], FIRST_KNOWN)},
        "(other)": sum(kinds[i] for i in range(FIRST_KNOWN + NAMED, FIRST_KNOWN + len(KNOWN))),
    }
    few = Counter(ids[:, 0].tolist())
    assert counted(values, "perennial_category_total", field="few") == {"a": few[FIRST_KNOWN], "(other)": 0}
    assert counted(values, "perennial_values_total", field="few") == {"missing": few[MISSING], "unknown": few[UNKNOWN]}

    for place, (field, knots) in enumerate(KNOTS.items()):
        known = numbers[~np.isnan(numbers[:, place]), place].tolist()
        edges = [*knots[::EVERY_KNOT], float("inf")]
        below = Counter(bisect_left(edges, value) for value in known)
        assert counted(values, "perennial_number_bucket", field=field) == {
            "+Inf" if edge == float("inf") else f"{edge:g}": sum(below[k] for k in range(n + 1))
            for n, edge in enumerate(edges)
        }
        assert counted(values, "perennial_number_sum", field=field) == {"": sum(known)}
        assert counted(values, "perennial_number_count", field=field) == {"": len(known)}
        assert counted(values, "perennial_values_total", field=field) == {"missing": 700 - len(known)}


def test_versions_are_counted_apart_and_the_oldest_goes() -> None:
    values = Values()
    for version in "1234":
        values.count(model(version), np.full((int(version), 2), UNKNOWN), np.zeros((int(version), 2), np.float32))
    seen = {v: counted(values, "perennial_values_total", version=v, field="few", kind="unknown") for v in "1234"}
    assert seen == {"1": {}, "2": {"unknown": 2}, "3": {"unknown": 3}, "4": {"unknown": 4}}
