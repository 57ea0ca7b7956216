"""What the values of a version's features look like, counted for `/metrics` by the log's thread."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from include.domain.features.encoding import FIRST_KNOWN, MISSING, UNKNOWN, Encoding
from include.server.metrics import named
from include.server.model import Model

#: Of a category's values, the most frequent ones in training are counted by name, the rest together.
NAMED = 10
#: Missing, unknown, those by name, the rest.
CLASSES = FIRST_KNOWN + NAMED + 1
#: Of a number's quantiles in training, every so many are bounds of its histogram.
EVERY_KNOT = 8
#: Versions of which counts are kept: the one served and those before it.
VERSIONS = 3


class Tally:
    """One version's counts. Those of categories are `[C, CLASSES]`, of numbers `[EDGES, N]`: how many are at most an edge,
    of which the last is infinite. Fields with fewer edges have more infinite ones."""

    def __init__(self, encoding: Encoding, texts: dict[str, list[str]]) -> None:
        self.encoding = encoding
        self.texts = {field: known[:NAMED] for field, known in texts.items()}
        self.edges = {f: np.array(encoding.knots[f][::EVERY_KNOT], np.float32) for f in encoding.numeric}
        most = max(map(len, self.edges.values()), default=0)
        self._bounds = np.full((most + 1, len(self.edges)), np.inf, np.float32)
        for column, edges in enumerate(self.edges.values()):
            self._bounds[: len(edges), column] = edges
        self._first = np.arange(0, len(encoding.categorical) * CLASSES, CLASSES)
        self.rows = 0
        self.categories = np.zeros((len(encoding.categorical), CLASSES), np.int64)
        self.numbers = np.zeros(self._bounds.shape, np.int64)
        self.sums = np.zeros(len(self.edges))

    def add(self, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> None:
        self.rows += len(ids)
        places = np.minimum(ids, CLASSES - 1) + self._first
        self.categories += np.bincount(places.ravel(), minlength=self.categories.size).reshape(-1, CLASSES)
        self.numbers += np.count_nonzero(numbers[:, None] <= self._bounds, axis=0)
        self.sums += np.where(np.isnan(numbers), 0, numbers).sum(0, dtype=np.float64)


class Values:
    """Three metrics of each feature: values missing and unknown, a histogram of a number, counts of a category."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def count(self, model: Model, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> None:
        """Ids `[n, categorical]` and numbers `[n, numeric]`, NaN where missing."""
        tally = self._tallies.get(model.version)
        if tally is None:
            while len(self._tallies) >= VERSIONS:
                del self._tallies[next(iter(self._tallies))]
            tally = self._tallies[model.version] = Tally(model.encoding, model.texts)
        tally.add(ids, numbers)

    def render(self, common: str) -> Iterable[str]:
        tallies = list(self._tallies.items())
        yield from _head("perennial_values_total", "counter", "Values that were missing or unknown to the vocabulary.")
        for version, tally in tallies:
            yield from _absent(common, version, tally)
        yield from _head("perennial_category_total", "counter", "Values of a category, the most frequent ones by name.")
        for version, tally in tallies:
            yield from _categories(common, version, tally)
        yield from _head("perennial_number", "histogram", "Values of a number, by quantiles of the training.")
        for version, tally in tallies:
            yield from _numbers(common, version, tally)


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _absent(common: str, version: str, tally: Tally) -> Iterable[str]:
    counts = {(field, kind): int(own[place]) for field, own in zip(tally.encoding.categorical, tally.categories, strict=True)
              for kind, place in (("missing", MISSING), ("unknown", UNKNOWN))}  # fmt: skip
    counts |= {(field, "missing"): tally.rows - int(n) for field, n in zip(tally.edges, tally.numbers[-1], strict=True)}
    for (field, kind), count in counts.items():
        yield f"perennial_values_total{{{named(common, version=version, field=field, kind=kind)}}} {count}"


def _categories(common: str, version: str, tally: Tally) -> Iterable[str]:
    for field, counts in zip(tally.encoding.categorical, tally.categories.tolist(), strict=True):
        frequent = dict(zip(tally.texts[field], counts[FIRST_KNOWN:], strict=False))
        for value, count in (*frequent.items(), ("(other)", counts[-1])):
            yield f"perennial_category_total{{{named(common, version=version, field=field, value=value)}}} {count}"


def _numbers(common: str, version: str, tally: Tally) -> Iterable[str]:
    for field, counts, total in zip(tally.edges, tally.numbers.T.tolist(), tally.sums.tolist(), strict=True):
        own, edges = named(common, version=version, field=field), tally.edges[field].tolist()
        for edge, count in zip(edges, counts, strict=False):
            yield f'perennial_number_bucket{{{own},le="{edge:g}"}} {count}'
        yield f'perennial_number_bucket{{{own},le="+Inf"}} {counts[-1]}'
        yield f"perennial_number_sum{{{own}}} {total}"
        yield f"perennial_number_count{{{own}}} {counts[-1]}"
