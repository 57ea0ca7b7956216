"""Measure how often the watch fires on simulated windows without drift, and how soon it fires after planted drift.

The windows without drift have Criteo's shape: 13 numbers and 26 categories, correlated by a Gaussian copula. Drift is planted
in `clicks`, where the AUC estimated without labels is measured too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtri
from scipy.stats import ks_2samp

from benchmarks.monitoring import planted_drift
from include.domain.monitoring import drift
from include.domain.monitoring.drift import Drift, FeatureDrift, ReferenceWindows
from include.domain.monitoring.signal import SignalState
from include.domain.monitoring.sketch import Sketches, sketch_ids, sketch_numbers

#: Columns of numbers, columns of categories, and the values that each category has.
NUMBERS, CATEGORIES, VALUES = 13, 26, 50
FEATURES = NUMBERS + CATEGORIES
KNOTS = ndtri(np.linspace(0.002, 0.998, 65)).tolist()
SHARES = 1 / np.arange(1, VALUES + 1) ** 1.1
CUTS = ndtri(np.cumsum(SHARES / SHARES.sum())[:-1])
#: The number of windows without drift that are judged, by the number of rows of each; 1,000 in all.
SIZES = {200: 400, 1000: 300, 5000: 200, 20_000: 80, 200_000: 20}
REFERENCE = 28
#: Rows of the windows that Evidently itself judges too; it takes seconds for each.
EVIDENTLY_ROWS = (300, 1000, 3000, 5000)

Rows = NDArray[np.float64]


def draw(random: np.random.Generator, rows: int, shift: Rows | float = 0.0) -> Rows:
    """Draw latent values `[rows, features]`, correlated by 0.36, each moved by `shift` standard deviations."""
    return 0.6 * random.normal(size=(rows, 1)) + 0.8 * random.normal(size=(rows, FEATURES)) + shift


def sketches(latent: Rows) -> Sketches:
    """Return the watch's sketches of a window: the first 13 columns are numbers, the others are cut into categories."""
    numbers = {f"I{i}": sketch_numbers(KNOTS, latent[:, i]) for i in range(NUMBERS)}
    categories = {
        f"C{i}": sketch_ids(VALUES + 2, np.searchsorted(CUTS, latent[:, i]) + 2) for i in range(NUMBERS, FEATURES)
    }
    return {**numbers, **categories}


def history(windows: Sequence[Sketches], seasons: Sequence[int] | None = None) -> ReferenceWindows:
    """Return the windows as the watch's reference; seven seasons follow each other unless they are passed."""
    return ReferenceWindows(
        windows, seasons or [i % 7 for i in range(len(windows))], {f"I{i}": KNOTS for i in range(NUMBERS)}
    )


def false_fires(seed: int = 7) -> dict[str, Any]:
    """Return by rule the share of windows without drift on which it raises an alarm."""
    random = np.random.default_rng(seed)
    alarms: dict[str, list[bool]] = {}
    for rows, count in SIZES.items():
        judge = NaiveRules(draw(random, max(rows, 20_000)))
        reference = history([sketches(draw(random, rows)) for _ in range(REFERENCE)])
        recent: dict[str, list[FeatureDrift]] = {}
        for i in range(count):
            latent = draw(random, rows)
            recent[str(i)] = drift.compare(Drift(), reference, sketches(latent), i % 7)
            ours = drift.signal("feature_drift", Drift(), recent)
            for name, alarm in {"watch": ours.state is SignalState.FIRE, **judge(latent)}.items():
                alarms.setdefault(name, []).append(alarm)
    return {name: round(float(np.mean(each)), 4) for name, each in alarms.items()}


@dataclass(frozen=True)
class NaiveRules:
    """The rules in common use, which raise an alarm if any column is flagged, or half of the columns (`evidently_half`)."""

    reference: Rows

    def __call__(self, latent: Rows) -> dict[str, bool]:
        psi = [_psi(*self._counts(latent, i)) > 0.1 for i in range(FEATURES)]
        columns = self.flagged_columns(latent)
        return {
            "ks_p_05": any(self._ks(latent)),
            "psi_0.1": any(psi),
            "evidently_any_column": bool(columns.any()),
            "evidently_half": columns.mean() >= 0.5,
        }

    def flagged_columns(self, latent: Rows) -> NDArray[np.bool_]:
        """Return which columns Evidently flags by default with over 1,000 reference rows: those at a distance of at least 0.1."""
        numbers = [self._wasserstein(latent, i) >= 0.1 for i in range(NUMBERS)]
        pairs = (self._counts(latent, i) for i in range(NUMBERS, FEATURES))
        return np.array([*numbers, *(jensenshannon(a, b) >= 0.1 for a, b in pairs)])

    def _ks(self, latent: Rows) -> list[bool]:
        pairs = ((self.reference[:, i], latent[:, i]) for i in range(NUMBERS))
        return [float(ks_2samp(a, b, method="asymp").pvalue) < 0.05 for a, b in pairs]

    def _counts(self, latent: Rows, i: int) -> tuple[Rows, Rows]:
        edges = np.quantile(self.reference[:, i], np.linspace(0, 1, 11)[1:-1]) if i < NUMBERS else CUTS
        a, b = (
            np.bincount(np.searchsorted(edges, x[:, i]), minlength=len(edges) + 1) for x in (latent, self.reference)
        )
        return a.astype(float), b.astype(float)

    def _wasserstein(self, latent: Rows, i: int) -> float:
        a, b = (np.quantile(x[:, i], np.linspace(0.0005, 0.9995, 1000)) for x in (latent, self.reference))
        return float(np.abs(a - b).mean() / self.reference[:, i].std())


def agreement(seed: int = 3) -> dict[str, float]:
    """Return the share of windows in which as many columns are flagged here as by Evidently itself, and their number."""
    random = np.random.default_rng(seed)
    agreements = []
    for rows in EVIDENTLY_ROWS:
        reference, latent = draw(random, 5000), draw(random, rows, 0.1)
        agreements.append(NaiveRules(reference).flagged_columns(latent).sum() == _evidently(reference, latent))
    return {"agree": float(np.mean(agreements)), "windows": len(agreements)}


def _evidently(reference: Rows, latent: Rows) -> int:
    """Return how many columns Evidently's DataDriftPreset flags."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [f"I{i}" if i < NUMBERS else f"C{i}" for i in range(FEATURES)]
    columns = DataDefinition(numerical_columns=names[:NUMBERS], categorical_columns=names[NUMBERS:])
    sides = []
    for values in (latent, reference):
        frame = pd.DataFrame(values, columns=names)
        for name in names[NUMBERS:]:
            frame[name] = np.searchsorted(CUTS, frame[name]).astype(str)
        sides.append(Dataset.from_pandas(frame, data_definition=columns))
    results = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
    return int(next(m["value"]["count"] for m in results if "DriftedColumnsCount" in str(m["metric_name"])))


def section() -> dict[str, Any]:
    """Return the figures, their bounds, and which of them hold."""
    fires = false_fires()
    figures, holds = planted_drift.section()
    bounds = {
        "false_fires": 0.01,
        **{name: day for name, (_, day) in planted_drift.INPUTS.items()},
        "cbpe_auc_error_p95": 0.02,
    }
    return {
        "false_fires": fires,
        "evidently_as_here": agreement(),
        **figures,
        "bounds": bounds,
        "holds": {"false_fires": fires["watch"] <= 0.01, **holds},
    }


def _psi(a: Rows, b: Rows) -> float:
    """Return the population stability index of two histograms."""
    p, q = np.maximum(a / a.sum(), 1e-4), np.maximum(b / b.sum(), 1e-4)
    return float(((p - q) * np.log(p / q)).sum())
