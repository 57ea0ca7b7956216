"""The watch on streams whose truth is known: false fires, planted drift, and the estimate without labels.

Windows have Criteo's shape: 13 numbers and 26 categories, correlated (Gaussian copula), and a label.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import chi2_contingency, ks_2samp
from sklearn.linear_model import LogisticRegression

from include.domain import drift, performance
from include.domain.drift import Drift, History, Moved
from include.domain.performance import Performance, Scored
from include.domain.signal import Signal, State
from include.domain.sketch import Sketches, of_ids, of_numbers

NUMBERS, CATEGORIES, WORDS = 13, 26, 50
FEATURES = NUMBERS + CATEGORIES
KNOTS = ndtri(np.linspace(0.002, 0.998, 65)).tolist()
SHARES = 1 / np.arange(1, WORDS + 1) ** 1.1
CUTS = ndtri(np.cumsum(SHARES / SHARES.sum())[:-1])
WEIGHTS = np.random.default_rng(1).normal(scale=0.35, size=FEATURES)
#: Rows of a window → how many identical windows are judged at that size; 1,000 in all.
SIZES = {200: 400, 1000: 300, 5000: 200, 20_000: 80, 200_000: 20}
REFERENCE = 28
SEEDS = 20

Rows = NDArray[np.float64]


def draw(random: np.random.Generator, rows: int, shift: Rows | float = 0.0) -> Rows:
    """Latent values `[rows, features]`, correlated by 0.36, each moved by `shift` standard deviations."""
    return 0.6 * random.normal(size=(rows, 1)) + 0.8 * random.normal(size=(rows, FEATURES)) + shift


def sketches(latent: Rows) -> Sketches:
    """What the watch keeps: the first 13 as numbers, the others cut into words."""
    numbers = {f"I{i}": of_numbers(KNOTS, latent[:, i]) for i in range(NUMBERS)}
    words = {f"C{i}": of_ids(WORDS + 2, np.searchsorted(CUTS, latent[:, i]) + 2) for i in range(NUMBERS, FEATURES)}
    return {**numbers, **words}


def history(windows: Sequence[Sketches], seasons: Sequence[int] | None = None) -> History:
    return History(windows, seasons or [i % 7 for i in range(len(windows))], {f"I{i}": KNOTS for i in range(NUMBERS)})


def false_fires(seed: int = 7) -> dict[str, Any]:
    """Shares of windows of the reference's own distribution on which each rule alarms."""
    random = np.random.default_rng(seed)
    alarms: dict[str, list[bool]] = {}
    for rows, count in SIZES.items():
        judge = Simple(draw(random, max(rows, 20_000)))
        reference = history([sketches(draw(random, rows)) for _ in range(REFERENCE)])
        recent: dict[str, list[Moved]] = {}
        for i in range(count):
            latent = draw(random, rows)
            recent[str(i)] = drift.compare(Drift(), reference, sketches(latent), i % 7)
            ours = drift.signal("feature_drift", Drift(), recent)
            for name, alarm in {"watch": ours.state is State.FIRE, **judge(latent)}.items():
                alarms.setdefault(name, []).append(alarm)
    return {name: round(float(np.mean(each)), 4) for name, each in alarms.items()}


@dataclass(frozen=True)
class Simple:
    """The common rules, an alarm when any column is flagged; `half`: Evidently's whole data set, half of the columns."""

    reference: Rows

    def __call__(self, latent: Rows) -> dict[str, bool]:
        few = len(latent) <= 1000
        ks = [float(ks_2samp(self.reference[:, i], latent[:, i], method="asymp").pvalue) < 0.05 for i in range(NUMBERS)]
        pairs = [self._counts(latent, i) for i in range(FEATURES)]
        psi = [_psi(a, b) > 0.1 for a, b in pairs]
        numbers = ks if few else [self._wasserstein(latent, i) >= 0.1 for i in range(NUMBERS)]
        words = [_chi(a, b) < 0.05 if few else _js(a, b) >= 0.1 for a, b in pairs[NUMBERS:]]
        columns = [*numbers, *words]
        return {"ks_p_05": any(ks), "psi_0.1": any(psi), "evidently_any_column": any(columns),
                "evidently_half": np.mean(columns) >= 0.5}  # fmt: skip

    def _counts(self, latent: Rows, i: int) -> tuple[Rows, Rows]:
        edges = np.quantile(self.reference[:, i], np.linspace(0, 1, 11)[1:-1]) if i < NUMBERS else CUTS
        a, b = (
            np.bincount(np.searchsorted(edges, x[:, i]), minlength=len(edges) + 1) for x in (latent, self.reference)
        )
        return a.astype(float), b.astype(float)

    def _wasserstein(self, latent: Rows, i: int) -> float:
        a, b = (np.quantile(x[:, i], np.linspace(0.0005, 0.9995, 1000)) for x in (latent, self.reference))
        return float(np.abs(a - b).mean() / self.reference[:, i].std())


def planted(seed: int) -> dict[str, int | None]:
    """Per kind of drift, on the how many-th drifted window the watch first fires; None for never in 14 windows."""
    random = np.random.default_rng(seed)
    reference = history([sketches(draw(random, 2000)) for _ in range(REFERENCE)])
    half, six, one = (np.r_[np.ones(n), np.zeros(FEATURES - n)] for n in (NUMBERS, 6, 1))
    weekend = np.where(np.arange(FEATURES) % 4 == 0, 0.7, 0.0)
    weekly = history([sketches(draw(random, 2000, weekend * (i % 7 >= 5))) for i in range(REFERENCE)])
    return {
        "gradual": _first(reference, (draw(random, 2000, 0.15 * (i + 1) * half) for i in range(14))),
        "sudden": _first(reference, (draw(random, 2000, six) for _ in range(14))),
        "one_feature": _first(reference, (draw(random, 2000, 0.5 * one) for _ in range(14))),
        "seasonal": _first(weekly, (draw(random, 2000, weekend * (i % 7 >= 5)) for i in range(14))),
    }


def concept(seed: int) -> dict[str, int | None]:
    """As `planted`, for labels that turn while the inputs stay; what each signal sees of it."""
    random = np.random.default_rng(seed)
    model, test = _model(random)
    reference = history([sketches(draw(random, 2000)) for _ in range(REFERENCE)])
    measured = {"logloss": performance.logloss(test), "auc": performance.auc(test)}
    turned = WEIGHTS * np.where(np.arange(FEATURES) % 3 == 0, -1.0, 1.0)
    first: dict[str, int | None] = dict.fromkeys(("logloss", "auc", "estimated_auc", "feature_drift"))
    live, recent = [], {}
    for day in range(7):
        latent = draw(random, 2000)
        recent[str(day)] = drift.compare(Drift(), reference, sketches(latent), day)
        live.append((model.predict_proba(latent)[:, 1], _labels(random, latent, turned)))
        for found in _look(live, recent, test, measured):
            if found.state is State.FIRE and first.get(found.name, 0) is None:
                first[found.name] = day + 1
    return first


def estimates(seed: int) -> float:
    """|estimated − realised AUC| of 7 windows of 2,000 rows whose inputs moved while P(label | inputs) stayed."""
    random = np.random.default_rng(seed)
    model, test = _model(random)
    latent = draw(random, 14_000, random.normal(scale=0.5, size=FEATURES))
    scores = performance.calibration(test)(model.predict_proba(latent)[:, 1])
    truth = performance.auc(_scored(_labels(random, latent, WEIGHTS), scores)).value
    return abs(performance.expected_auc(scores) - truth)


def section() -> dict[str, Any]:
    """The figures, their bounds, and whether they hold."""
    fires = false_fires()
    delays = [{**planted(seed), **{f"concept_{k}": v for k, v in concept(seed).items()}} for seed in range(SEEDS)]
    found = {name: _within([d[name] for d in delays]) for name in delays[0]}
    errors = [estimates(seed) for seed in range(SEEDS)]
    holds = {
        "false_fires": fires["watch"] <= 0.01,
        "gradual": found["gradual"]["worst"] is not None and found["gradual"]["worst"] <= 2,
        "sudden": found["sudden"]["worst"] == 1,
        "one_feature": found["one_feature"]["worst"] is not None and found["one_feature"]["worst"] <= 2,
        "seasonal": found["seasonal"]["fired"] == 0,
        "concept_seen": found["concept_logloss"]["fired"] == 1,
        "concept_invisible_to_estimate": found["concept_estimated_auc"]["fired"] == 0,
        "cbpe": float(np.quantile(errors, 0.95)) <= 0.02,
    }
    return {"false_fires": fires, "first_fire": found, "cbpe_auc_error": {"median": round(float(np.median(errors)), 4),
            "p95": round(float(np.quantile(errors, 0.95)), 4)}, "holds": holds}  # fmt: skip


def _within(firsts: Sequence[int | None]) -> dict[str, Any]:
    fired = [f for f in firsts if f is not None]
    worst = max(fired) if len(fired) == len(firsts) else None
    return {
        "fired": round(len(fired) / len(firsts), 3),
        "median": float(np.median(fired)) if fired else None,
        "worst": worst,
    }


def _first(reference: History, windows: Iterable[Rows]) -> int | None:
    recent: dict[str, list[Moved]] = {}
    for i, latent in enumerate(windows):
        recent[str(i)] = drift.compare(Drift(), reference, sketches(latent), i % 7)
        if drift.signal("feature_drift", Drift(), recent).state is State.FIRE:
            return i + 1
    return None


def _look(live: Sequence[tuple[Rows, Rows]], recent: dict[str, list[Moved]], test: Scored,
          measured: dict[str, performance.Measured]) -> list[Signal]:  # fmt: skip
    rules, names = Performance(), tuple(map(str, range(len(live))))
    scores, labels = (np.concatenate([day[i] for day in live]) for i in (0, 1))
    window = np.repeat(np.arange(len(live)), 2000)
    estimate = performance.estimated(rules, performance.calibration(test)(scores), window, names, measured["auc"])
    return [*performance.signals(rules, Scored(labels, scores, window, names), measured), estimate,
            drift.signal("feature_drift", Drift(), recent)]  # fmt: skip


def _model(random: np.random.Generator) -> tuple[LogisticRegression, Scored]:
    """A model of the stream, and its predictions on a fortnight of 2,000 rows a day."""
    train, test = draw(random, 20_000), draw(random, 28_000)
    model = LogisticRegression(max_iter=200).fit(train, _labels(random, train, WEIGHTS))
    return model, _scored(_labels(random, test, WEIGHTS), model.predict_proba(test)[:, 1])


def _labels(random: np.random.Generator, latent: Rows, weights: Rows) -> Rows:
    return (random.random(len(latent)) < 1 / (1 + np.exp(1.5 - latent @ weights))).astype(float)


def _scored(labels: Rows, scores: Rows) -> Scored:
    window = np.arange(len(labels)) // 2000
    return Scored(labels, scores, window, tuple(map(str, range(int(window.max()) + 1))))


def _psi(a: Rows, b: Rows) -> float:
    p, q = np.maximum(a / a.sum(), 1e-4), np.maximum(b / b.sum(), 1e-4)
    return float(((p - q) * np.log(p / q)).sum())


def _js(a: Rows, b: Rows) -> float:
    p, q = a / a.sum(), b / b.sum()
    m = (p + q) / 2
    bits = sum(float((x[x > 0] * np.log2(x[x > 0] / m[x > 0])).sum()) for x in (p, q)) / 2
    return float(np.sqrt(max(0.0, bits)))


def _chi(a: Rows, b: Rows) -> float:
    table = np.array([a, b])
    return float(chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)
