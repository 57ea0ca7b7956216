"""What the values of a version's features look like, counted for `/metrics` by the log's thread."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from include.domain.encoding import FIRST_KNOWN, MISSING, UNKNOWN, Encoding
from include.server.metrics import named
from include.server.model import Model

#: Of a category's values, the most frequent ones in training are counted by name, the rest together.
NAMED = 10
#: Of a number's quantiles in training, every so many are bounds of its histogram.
EVERY_KNOT = 8
#: Versions of which counts are kept: the one served and those before it.
VERSIONS = 3


class Tally:
    """One version's counts."""

    def __init__(self, encoding: Encoding, texts: dict[str, list[str]]) -> None:
        self.categories = {
            f: np.zeros(size, np.int64) for f, size in zip(encoding.categorical, encoding.sizes, strict=True)
        }
        self.texts = {field: known[:NAMED] for field, known in texts.items()}
        self.edges = {f: np.array(encoding.knots[f][::EVERY_KNOT], np.float32) for f in encoding.numeric}
        self.numbers = {f: np.zeros(len(edges) + 1, np.int64) for f, edges in self.edges.items()}
        self.sums, self.missing = dict.fromkeys(self.edges, 0.0), dict.fromkeys(self.edges, 0)

    def add(self, ids: NDArray[np.int64], numbers: NDArray[np.float32]) -> None:
        for field, column in zip(self.categories, ids.T, strict=True):
            self.categories[field] += np.bincount(column, minlength=len(self.categories[field]))
        for field, column in zip(self.numbers, numbers.T, strict=True):
            known = column[~np.isnan(column)]
            places = np.searchsorted(self.edges[field], known)
            self.numbers[field] += np.bincount(places, minlength=len(self.numbers[field]))
            self.sums[field] += float(known.sum(dtype=np.float64))
            self.missing[field] += len(column) - len(known)


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
    counts = {(f, kind): int(c[place]) for f, c in tally.categories.items()
              for kind, place in (("missing", MISSING), ("unknown", UNKNOWN))}  # fmt: skip
    counts |= {(field, "missing"): count for field, count in tally.missing.items()}
    for (field, kind), count in counts.items():
        yield f"perennial_values_total{{{named(common, version=version, field=field, kind=kind)}}} {count}"


def _categories(common: str, version: str, tally: Tally) -> Iterable[str]:
    for field, counts in tally.categories.items():
        known = counts[FIRST_KNOWN:]
        frequent = dict(zip(tally.texts[field], known.tolist(), strict=False))
        for value, count in (*frequent.items(), ("(other)", int(known[NAMED:].sum()))):
            yield f"perennial_category_total{{{named(common, version=version, field=field, value=value)}}} {count}"


def _numbers(common: str, version: str, tally: Tally) -> Iterable[str]:
    for field, counts in tally.numbers.items():
        own, total = named(common, version=version, field=field), 0
        for edge, count in zip((*tally.edges[field].tolist(), float("inf")), counts.tolist(), strict=True):
            total += count
            le = "+Inf" if edge == float("inf") else f"{edge:g}"
            yield f'perennial_number_bucket{{{own},le="{le}"}} {total}'
        yield f"perennial_number_sum{{{own}}} {tally.sums[field]}"
        yield f"perennial_number_count{{{own}}} {total}"
