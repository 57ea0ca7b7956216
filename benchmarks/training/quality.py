"""Measure how good the models are on flights: three rolling splits, three seeds, the same rows and features for all.

`python -m benchmarks quality [--seeds 3] [--keep FOLDER]`: train to May, July, September; validate on the month after;
test on July, September, November and December. Ours (DCN-v2, and its mean with LightGBM, which is the family `blend`)
against LightGBM, CatBoost (in the peers' environment) and logistic regression. Differences carry intervals over days. The
last line is one JSON object with the figures, the bounds and `holds`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.training.data import InMemoryTables, clicks_stream, flights_features
from benchmarks.training.train import ROOT, peer_environment
from include import settings
from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain import metrics
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.stages.training import dataset as assembly
from include.stages.training import training

OURS, PEERS = ("dcn", "blend"), ("lightgbm", "catboost", "logistic")
#: Resamples of the bootstrap, and the seconds of a day.
DRAWS, DAY = 2000, 86_400
BOUNDS = {"worse_than_the_best_peer": 0.0, "auc_below_the_best_possible": 0.005}
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Period:
    """A split in time: `validate` days, then `test` days until `end`; what comes before trains."""

    name: str
    end: datetime
    validate: int
    test: int


PERIODS = (
    Period("July", datetime(2013, 8, 1, tzinfo=UTC), 30, 31),
    Period("September", datetime(2013, 10, 1, tzinfo=UTC), 31, 30),
    Period("November-December", datetime(2014, 1, 1, tzinfo=UTC), 31, 61),
)


def dataset(spec: ModelSpec, tables: InMemoryTables, period: Period, out: Path) -> Reference:
    """Write the dataset of that period."""
    training_section = replace(spec.training, validate_windows=period.validate, test_windows=period.test)
    period_spec = spec.model_copy(update={"training": training_section})
    return assembly.assemble(period_spec, period.end + spec.label_delay, tables, "bench", out)  # type: ignore[arg-type]


def train(spec: ModelSpec, data: Reference, family: str, seed: int, out: Path) -> None:
    """Run the trainer program, which writes the model to the folder `out`."""
    seeded_spec = spec.model_copy(update={"training": replace(spec.training, seed=seed)})
    store.write(out / "job.json", training.job(seeded_spec, data, family, out))
    subprocess.run(
        [sys.executable, "-m", "include.trainer", str(out / "job.json")],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def train_and_score(spec: ModelSpec, data: Reference, family: str, seed: int, out: Path) -> Scores:
    """Run the trainer program, and return the scores of its ONNX graph for the validate and the test rows."""
    train(spec, data, family, seed, out)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    folder, scores = store.path_of(data.uri).parent, {}
    for split in ("validate", "test"):
        ids, numbers = (np.load(folder / f"{split}.{part}.npy") for part in ("ids", "numbers"))
        scores[split] = session.run(["score"], {"ids": ids.astype(np.int64), "numbers": numbers})[0].astype(np.float64)
    return scores


def catboost(data: Reference, seed: int, out: Path) -> Scores:
    """Train CatBoost in the peers' environment, and return its scores of the validate and the test rows."""
    out.mkdir(parents=True, exist_ok=True)
    folder = store.path_of(data.uri).parent
    command = [str(peer_environment()), "benchmarks/training/peers.py", "catboost", str(folder), str(out), str(seed)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {split: np.load(out / f"catboost.{split}.npy") for split in ("validate", "test")}


def scores_of(spec: ModelSpec, data: Reference, name: str, seed: int, out: Path) -> Scores:
    """Return the scores of the named model; they are written to the folder, so that a bench that was stopped goes on there."""
    file = out / f"{name}-{seed}.npz"
    if not file.exists():
        scores = (
            catboost(data, seed, out / name)
            if name == "catboost"
            else train_and_score(spec, data, name, seed, out / f"{name}-{seed}")
        )
        np.savez(file, **scores)  # type: ignore[arg-type]
    with np.load(file) as arrays:
        return dict(arrays)


def flights_figures(spec: ModelSpec, seeds: range, keep: Path) -> dict[str, Any]:
    """Return the figures on flights; CatBoost is trained last, since it takes as long as all others together."""
    tables = flights_features(spec)
    data = {p.name: dataset(spec, tables, p, keep / p.name / "data") for p in PERIODS}
    labels = {
        name: {s: _array(reference, s, "labels") for s in ("validate", "test")} for name, reference in data.items()
    }
    all_scores: dict[tuple[str, str], list[Scores]] = {}
    for model in ("lightgbm", "dcn", "logistic", "catboost"):
        for seed in seeds:
            for name, reference in data.items():
                scores = scores_of(spec, reference, model, seed, keep / name)
                all_scores.setdefault((model, name), []).append(scores)
                print(
                    name,
                    seed,
                    model,
                    metrics.all_metrics(labels[name]["test"], scores["test"]),
                    file=sys.stderr,
                    flush=True,
                )
    for name in data:
        pairs = zip(all_scores["dcn", name], all_scores["lightgbm", name], strict=True)
        all_scores["blend", name] = [{s: (a[s] + b[s]) / 2 for s in a} for a, b in pairs]

    def mean(measure: Any, split: str) -> dict[tuple[str, str], Any]:
        return {
            key: np.mean([measure(labels[key[1]][split], scores[split]) for scores in each], axis=0)
            for key, each in all_scores.items()
        }

    days = {name: _array(reference, "test", "times") // DAY for name, reference in data.items()}
    return summary(mean(metrics.row_losses, "test"), days, mean(metrics.logloss, "validate"), mean(metrics.auc, "test"))


def summary(losses: Any, days: Any, validated: Any, aucs: Any) -> dict[str, Any]:
    """Return the means over the periods, and compare with the best peer the model of ours with the lowest validation loss."""
    models = (*OURS, *PEERS)
    table = {
        model: {
            "logloss": _mean(losses[model, p.name].mean() for p in PERIODS),
            "validate_logloss": _mean(validated[model, p.name] for p in PERIODS),
            "auc": _mean(aucs[model, p.name] for p in PERIODS),
            "by_period": {p.name: float(losses[model, p.name].mean()) for p in PERIODS},
        }
        for model in models
    }
    chosen = min(OURS, key=lambda m: table[m]["validate_logloss"])
    best = min(PEERS, key=lambda m: table[m]["logloss"])
    differences = {f"{one} - {other}": difference(losses, days, one, other) for one in OURS for other in PEERS}
    return {
        "models": table,
        "differences": differences,
        "chosen": chosen,
        "best_peer": best,
        "worse_than_the_best_peer": table[chosen]["logloss"] - table[best]["logloss"],
    }


def difference(losses: Any, days: Any, one: str, other: str) -> dict[str, float]:
    """Return the mean logloss of one model less the other's, with a 95 % interval by a bootstrap over the days of each period."""
    random, resampled, value = np.random.default_rng(17), np.zeros(DRAWS), 0.0
    for period in PERIODS:
        gap = losses[one, period.name] - losses[other, period.name]
        _, day_of_row = np.unique(days[period.name], return_inverse=True)
        total, rows = np.bincount(day_of_row, gap), np.bincount(day_of_row)
        sampled_days = random.integers(0, len(rows), (DRAWS, len(rows)))
        resampled += total[sampled_days].sum(1) / rows[sampled_days].sum(1) / len(PERIODS)
        value += gap.mean() / len(PERIODS)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def clicks_figures(keep: Path, rows: int) -> dict[str, float]:
    """Return the AUC of the shipped spec on the click stream beside the best AUC that is possible there."""
    spec = find("clicks")
    data, best = clicks_stream(spec, keep / "data", table=120_000, rows=rows)
    train(spec, data, spec.model.family, spec.training.seed, keep / "model")
    auc = store.load(keep / "model" / "manifest.json", ModelManifest).metrics.test.auc
    return {"rows": rows, "auc": auc, "best_auc": best, "auc_below_the_best_possible": best - auc}


def _array(data: Reference, split: str, part: str) -> NDArray[Any]:
    return np.load(store.path_of(data.uri).with_name(f"{split}.{part}.npy"))


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def main() -> int:
    """Train and compare all models, print the figures, and return 0 if all bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clicks", type=int, default=12_000_000, help="rows to train on; 0 leaves them out")
    parser.add_argument("--keep", type=Path, help="a folder for what was trained; a temporary one when left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep = options.keep or Path(folder)
        figures = {"flights": flights_figures(find("flights", settings.from_env().models), range(options.seeds), keep)}
        if options.clicks:
            figures["clicks"] = clicks_figures(Path(folder) / "clicks", options.clicks)
    checks = {n: part[n] <= bound for part in figures.values() for n, bound in BOUNDS.items() if n in part}
    print(
        json.dumps(
            {
                "bench": "train_quality",
                "figures": figures,
                "bounds": BOUNDS,
                "checks": checks,
                "holds": all(checks.values()),
            }
        )
    )
    return 0 if all(checks.values()) else 1
