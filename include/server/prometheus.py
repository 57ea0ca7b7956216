"""Counters, gauges and histograms in Prometheus' text format; small, because they are on the path of every request."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

LabelValues = tuple[str, ...]
#: Upper bounds of the latency histogram's buckets, in seconds.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75, 1, 2.5, 5)


class Counter:
    """A value for each combination of its labels' values; `help_text` and `kind` stand on the page above them."""

    def __init__(self, name: str, help_text: str, *labels: str, kind: str = "counter") -> None:
        self.name, self.help_text, self.labels, self.kind = name, help_text, labels, kind
        self.values: dict[LabelValues, float] = defaultdict(int)

    def inc(self, labels: LabelValues = (), amount: float = 1) -> None:
        """Add the amount to the value of these labels."""
        self.values[labels] += amount

    def samples(self, common: str) -> Iterable[str]:
        """Yield a line for each value; `common` is the text of the labels that stand on every line."""
        for labels, value in list(self.values.items()):
            yield f"{self.name}{{{_join_labels(common, self.labels, labels)}}} {value}"


class Gauge(Counter):
    """Values that `read` returns whenever the page is rendered."""

    def __init__(
        self, name: str, help_text: str, read: Callable[[], Mapping[LabelValues, float]], *labels: str
    ) -> None:
        super().__init__(name, help_text, *labels, kind="gauge")
        self._read = read

    def samples(self, common: str) -> Iterable[str]:
        """Read the values and yield a line for each; see Counter."""
        self.values = dict(self._read())
        return super().samples(common)


class Histogram:
    """Counts of values by bucket; `bounds` ascend, and a value equal to a bound counts below it, as for Prometheus' `le`."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, bounds: Iterable[float], *labels: str) -> None:
        self.name, self.help_text, self.labels = name, help_text, labels
        self.bounds = tuple(bounds)
        self.counts: dict[LabelValues, list[int]] = {}
        self.sums: dict[LabelValues, float] = defaultdict(float)

    def observe(self, value: float, labels: LabelValues = ()) -> None:
        """Count one value in the histogram of these labels."""
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def samples(self, common: str) -> Iterable[str]:
        """Yield the lines of buckets, sum and count; see Counter."""
        for labels, counts in list(self.counts.items()):
            joined, total = _join_labels(common, self.labels, labels), 0
            for bound, count in zip((*self.bounds, float("inf")), counts, strict=True):
                total += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f'{self.name}_bucket{{{joined},le="{le}"}} {total}'
            yield f"{self.name}_sum{{{joined}}} {self.sums[labels]}"
            yield f"{self.name}_count{{{joined}}} {total}"


class Metrics:
    """The metrics of one slot's server; the labels `slot` and `model` stand on every line."""

    def __init__(self, slot: str, model: str) -> None:
        self._common = f'slot="{slot}",model="{model}"'
        self.requests = Counter("perennial_requests_total", "Requests answered.", "route", "code", "version")
        self.request_seconds = Histogram("perennial_request_seconds", "Time to answer a request.", SECONDS, "route")
        self.batch_rows = Histogram("perennial_batch_rows", "Rows scored together.", [2**i for i in range(9)])
        self.scores = Histogram("perennial_score", "Scores given.", [i / 20 for i in range(1, 21)], "version")
        self.loads = Counter("perennial_model_loads_total", "Versions loaded, or not.", "outcome")
        logged = "Rows written to the log, lost, or left out by sampling."
        self.log_rows = Counter("perennial_log_rows_total", logged, "outcome")
        self.cache_requests = Counter("perennial_cache_requests_total", "Requests looked up in the cache.", "outcome")
        self._renderers: list[Callable[[str], Iterable[str]]] = []
        self._all: list[Counter | Histogram] = [
            self.requests,
            self.request_seconds,
            self.batch_rows,
            self.scores,
            self.loads,
            self.log_rows,
            self.cache_requests,
        ]

    def register_gauge(
        self, name: str, help_text: str, read: Callable[[], Mapping[LabelValues, float]], *labels: str
    ) -> None:
        """Add a gauge to the page; see Gauge."""
        self._all.append(Gauge(name, help_text, read, *labels))

    def register_renderer(self, render: Callable[[str], Iterable[str]]) -> None:
        """Add lines to the end of the page; `render` makes them from the text of the common labels."""
        self._renderers.append(render)

    def render(self) -> bytes:
        """Return the page of `/metrics`."""
        lines: list[str] = []
        for metric in self._all:
            lines += metric_header(metric.name, metric.kind, metric.help_text)
            lines += metric.samples(self._common)
        for render in self._renderers:
            lines += render(self._common)
        return ("\n".join(lines) + "\n").encode()


def metric_header(name: str, kind: str, help_text: str) -> tuple[str, str]:
    """Return the two comment lines above a metric's samples."""
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def join_labels(common: str, **labels: str) -> str:
    """Return the text between a sample's braces: the common labels, then these."""
    return _join_labels(common, tuple(labels), tuple(labels.values()))


def _join_labels(common: str, names: LabelValues, values: LabelValues) -> str:
    own = ",".join(f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True))
    return f"{common},{own}" if own else common


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
