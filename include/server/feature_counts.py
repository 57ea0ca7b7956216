"""Counts of the values of each version's features for `/metrics`, kept by the thread of the prediction log."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from include.domain.features.encoding import FIRST_ID, MISSING, UNKNOWN, Encoding
from include.server.prometheus import join_labels, metric_header
from include.server.servable_model import ServableModel

#: Categories of a field that are counted by name: those that are most frequent in training. The others are counted together.
MAX_NAMED = 10
#: Counts of a categorical field: missing, unknown, the named categories, the others.
COUNTS_PER_FIELD = FIRST_ID + MAX_NAMED + 1
#: A histogram's bounds are every so many quantiles of the field in training.
KNOT_STEP = 8
#: Versions whose counts are kept: the one served and those before it.
MAX_VERSIONS = 3


class VersionCounts:
    """The counts of one version.

    `categories` is `[C, COUNTS_PER_FIELD]`, `sums` is `[N]`. `numbers` is `[bounds, N]`, how many values are at most each bound;
    the last bound of a field is infinite, and a field with fewer bounds than another has several infinite ones.
    """

    def __init__(self, encoding: Encoding, categories: dict[str, list[str]]) -> None:
        self.encoding = encoding
        self.named_categories = {field: texts[:MAX_NAMED] for field, texts in categories.items()}
        self.bounds = {f: np.array(encoding.knots[f][::KNOT_STEP], np.float32) for f in encoding.numeric}
        longest = max(map(len, self.bounds.values()), default=0)
        self._bounds = np.full((longest + 1, len(self.bounds)), np.inf, np.float32)
        for column, bounds in enumerate(self.bounds.values()):
            self._bounds[: len(bounds), column] = bounds
        self._offsets = np.arange(0, len(encoding.categorical) * COUNTS_PER_FIELD, COUNTS_PER_FIELD)
        self.rows = 0
        self.categories = np.zeros((len(encoding.categorical), COUNTS_PER_FIELD), np.int64)
        self.numbers = np.zeros(self._bounds.shape, np.int64)
        self.sums = np.zeros(len(self.bounds))

    def add(self, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> None:
        """Count rows: ids `[n, C]`, numbers `[n, N]`."""
        self.rows += len(ids)
        indices = np.minimum(ids, COUNTS_PER_FIELD - 1) + self._offsets
        self.categories += np.bincount(indices.ravel(), minlength=self.categories.size).reshape(-1, COUNTS_PER_FIELD)
        self.numbers += np.count_nonzero(numbers[:, None] <= self._bounds, axis=0)
        self.sums += np.where(np.isnan(numbers), 0, numbers).sum(0, dtype=np.float64)


class FeatureCounts:
    """Three metrics for each feature: missing and unknown values, a histogram of numbers, and counts of categories."""

    def __init__(self) -> None:
        self._versions: dict[str, VersionCounts] = {}

    def add(self, model: ServableModel, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> None:
        """Count rows that the model scored: ids `[n, categorical]` and numbers `[n, numeric]`, NaN where missing."""
        counts = self._versions.get(model.version)
        if counts is None:
            while len(self._versions) >= MAX_VERSIONS:
                del self._versions[next(iter(self._versions))]
            counts = self._versions[model.version] = VersionCounts(model.encoding, model.categories)
        counts.add(ids, numbers)

    def render(self, common: str) -> Iterable[str]:
        """Yield the metrics' lines; see Metrics.register_renderer."""
        versions = list(self._versions.items())
        help_text = "Values that were missing or unknown to the vocabulary."
        yield from metric_header("perennial_values_total", "counter", help_text)
        for version, counts in versions:
            yield from _missing_and_unknown(common, version, counts)
        help_text = "Values of a category, the most frequent ones by name."
        yield from metric_header("perennial_category_total", "counter", help_text)
        for version, counts in versions:
            yield from _categories(common, version, counts)
        yield from metric_header("perennial_number", "histogram", "Values of a number, by quantiles of the training.")
        for version, counts in versions:
            yield from _numbers(common, version, counts)


def _missing_and_unknown(common: str, version: str, counts: VersionCounts) -> Iterable[str]:
    totals = {
        (field, kind): int(field_counts[index])
        for field, field_counts in zip(counts.encoding.categorical, counts.categories, strict=True)
        for kind, index in (("missing", MISSING), ("unknown", UNKNOWN))
    }
    present = zip(counts.bounds, counts.numbers[-1], strict=True)
    totals |= {(field, "missing"): counts.rows - int(count) for field, count in present}
    for (field, kind), total in totals.items():
        yield f"perennial_values_total{{{join_labels(common, version=version, field=field, kind=kind)}}} {total}"


def _categories(common: str, version: str, counts: VersionCounts) -> Iterable[str]:
    for field, field_counts in zip(counts.encoding.categorical, counts.categories.tolist(), strict=True):
        named = dict(zip(counts.named_categories[field], field_counts[FIRST_ID:], strict=False))
        for value, total in (*named.items(), ("(other)", field_counts[-1])):
            labels = join_labels(common, version=version, field=field, value=value)
            yield f"perennial_category_total{{{labels}}} {total}"


def _numbers(common: str, version: str, counts: VersionCounts) -> Iterable[str]:
    for field, cumulative, total in zip(counts.bounds, counts.numbers.T.tolist(), counts.sums.tolist(), strict=True):
        labels, bounds = join_labels(common, version=version, field=field), counts.bounds[field].tolist()
        for bound, count in zip(bounds, cumulative, strict=False):
            yield f'perennial_number_bucket{{{labels},le="{bound:g}"}} {count}'
        yield f'perennial_number_bucket{{{labels},le="+Inf"}} {cumulative[-1]}'
        yield f"perennial_number_sum{{{labels}}} {total}"
        yield f"perennial_number_count{{{labels}}} {cumulative[-1]}"
