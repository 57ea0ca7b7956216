"""Counters and histograms in Prometheus' text format; small, because they stand on the path of every request."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

Labels = tuple[str, ...]


class Counter:
    def __init__(self, name: str, text: str, *labels: str, kind: str = "counter") -> None:
        self.name, self.text, self.labels, self.kind = name, text, labels, kind
        self.values: dict[Labels, float] = defaultdict(int)

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        self.values[labels] += amount

    def lines(self, common: str) -> Iterable[str]:
        for labels, value in list(self.values.items()):
            yield f"{self.name}{{{_text(common, self.labels, labels)}}} {value}"


class Gauge(Counter):
    """Read when it is asked for."""

    def __init__(self, name: str, text: str, read: Callable[[], Mapping[Labels, float]], *labels: str) -> None:
        super().__init__(name, text, *labels, kind="gauge")
        self._read = read

    def lines(self, common: str) -> Iterable[str]:
        self.values = dict(self._read())
        return super().lines(common)


class Histogram:
    """`bounds` ascend; a value equal to a bound counts below it, as Prometheus' `le` says."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Iterable[float], *labels: str) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.bounds = tuple(bounds)
        self.counts: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = defaultdict(float)

    def observe(self, value: float, labels: Labels = ()) -> None:
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def lines(self, common: str) -> Iterable[str]:
        for labels, counts in list(self.counts.items()):
            names, total = _text(common, self.labels, labels), 0
            for bound, count in zip((*self.bounds, float("inf")), counts, strict=True):
                total += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f'{self.name}_bucket{{{names},le="{le}"}} {total}'
            yield f"{self.name}_sum{{{names}}} {self.sums[labels]}"
            yield f"{self.name}_count{{{names}}} {total}"


class Metrics:
    """What one slot counts; `slot` and `model` stand on every line."""

    def __init__(self, slot: str, model: str) -> None:
        self._common = f'slot="{slot}",model="{model}"'
        self.requests = Counter("perennial_requests_total", "Requests answered.", "route", "code", "version")
        self.seconds = Histogram(
            "perennial_request_seconds", "Time to answer a request.",
            (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75, 1, 2.5, 5), "route",
        )  # fmt: skip
        self.batch = Histogram("perennial_batch_rows", "Rows scored together.", [2**i for i in range(9)])
        self.scores = Histogram("perennial_score", "Scores given.", [i / 20 for i in range(1, 21)], "version")
        self.loads = Counter("perennial_model_loads_total", "Versions loaded, or not.", "outcome")
        self.logged = Counter("perennial_log_rows_total", "Rows written to the log, lost, or left out by sampling.",
                              "outcome")  # fmt: skip
        self.cache = Counter("perennial_cache_requests_total", "Requests looked up in the cache.", "outcome")
        self._parts: list[Callable[[str], Iterable[str]]] = []
        self._all: list[Counter | Histogram] = [
            self.requests, self.seconds, self.batch, self.scores, self.loads, self.logged, self.cache,
        ]  # fmt: skip

    def gauge(self, name: str, text: str, read: Callable[[], Mapping[Labels, float]], *labels: str) -> None:
        self._all.append(Gauge(name, text, read, *labels))

    def part(self, render: Callable[[str], Iterable[str]]) -> None:
        """More lines, made of the common labels."""
        self._parts.append(render)

    def render(self) -> bytes:
        lines: list[str] = []
        for metric in self._all:
            lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines(self._common)
        for part in self._parts:
            lines += part(self._common)
        return ("\n".join(lines) + "\n").encode()


def named(common: str, **labels: str) -> str:
    """The inside of a metric's braces."""
    return _text(common, tuple(labels), tuple(labels.values()))


def _text(common: str, names: Labels, values: Labels) -> str:
    own = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return f"{common},{own}" if own else common


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
