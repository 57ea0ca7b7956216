"""The counts of values on `/metrics`, against counting each value by itself."""

import re
from bisect import bisect_left
from collections import Counter
from types import SimpleNamespace
from typing import cast

import numpy as np

from include.domain.features.encoding import FIRST_ID, MISSING, UNKNOWN, Encoding
from include.server.feature_counts import KNOT_STEP, MAX_NAMED, FeatureCounts
from include.server.servable_model import ServableModel

CATEGORIES = [f"v{n:02}" for n in range(MAX_NAMED + 5)]
KNOTS = {"many": tuple(float(k) for k in range(40)), "one": (3.0,)}


def model(version: str = "1") -> ServableModel:
    encoding = Encoding(
        time="at",
        zone="UTC",
        time_parts=(),
        categorical=("few", "kind"),
        numeric=tuple(KNOTS),
        vocabulary={"few": {"a": FIRST_ID}, "kind": {v: i for i, v in enumerate(CATEGORIES, FIRST_ID)}},
        knots=KNOTS,
    )
    categories = {"few": ["a"], "kind": CATEGORIES}
    return cast(ServableModel, SimpleNamespace(version=version, encoding=encoding, categories=categories))


def samples(counts: FeatureCounts, metric: str, **labels: str) -> dict[str, float]:
    """Return the metric's values with these labels, by the labels `kind`, `value` and `le`."""
    matching = {}
    for line in counts.render('slot="stable"'):
        name, _, rest = line.partition("{")
        inside, _, value = rest.rpartition("} ")
        own = dict(re.findall(r'(\w+)="([^"]*)"', inside))
        if name == metric and labels.items() <= own.items():
            matching[",".join(own[k] for k in ("kind", "value", "le") if k in own)] = float(value)
    return matching


def test_every_value_is_counted_once_where_it_belongs() -> None:
    rng, counts = np.random.default_rng(0), FeatureCounts()
    ids = np.column_stack([rng.integers(0, FIRST_ID + 1, 700), rng.integers(0, FIRST_ID + len(CATEGORIES), 700)])
    numbers = rng.integers(-3, 45, (700, 2)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    for start in range(0, 700, 100):
        counts.add(model(), ids[start : start + 100], numbers[start : start + 100])

    kinds = Counter(ids[:, 1].tolist())
    assert samples(counts, "perennial_category_total", field="kind") == {
        **{text: kinds[i] for i, text in enumerate(CATEGORIES[:MAX_NAMED], FIRST_ID)},
        "(other)": sum(kinds[i] for i in range(FIRST_ID + MAX_NAMED, FIRST_ID + len(CATEGORIES))),
    }
    few = Counter(ids[:, 0].tolist())
    assert samples(counts, "perennial_category_total", field="few") == {"a": few[FIRST_ID], "(other)": 0}
    absent = {"missing": few[MISSING], "unknown": few[UNKNOWN]}
    assert samples(counts, "perennial_values_total", field="few") == absent

    for column, (field, knots) in enumerate(KNOTS.items()):
        present = numbers[~np.isnan(numbers[:, column]), column].tolist()
        bounds = [*knots[::KNOT_STEP], float("inf")]
        buckets = Counter(bisect_left(bounds, value) for value in present)
        assert samples(counts, "perennial_number_bucket", field=field) == {
            "+Inf" if bound == float("inf") else f"{bound:g}": sum(buckets[k] for k in range(n + 1))
            for n, bound in enumerate(bounds)
        }
        assert samples(counts, "perennial_number_sum", field=field) == {"": sum(present)}
        assert samples(counts, "perennial_number_count", field=field) == {"": len(present)}
        assert samples(counts, "perennial_values_total", field=field) == {"missing": 700 - len(present)}


def test_versions_are_counted_apart_and_the_oldest_goes() -> None:
    counts = FeatureCounts()
    for version in "1234":
        counts.add(model(version), np.full((int(version), 2), UNKNOWN), np.zeros((int(version), 2), np.float32))
    unknown = {v: samples(counts, "perennial_values_total", version=v, field="few", kind="unknown") for v in "1234"}
    assert unknown == {"1": {}, "2": {"unknown": 2}, "3": {"unknown": 3}, "4": {"unknown": 4}}
