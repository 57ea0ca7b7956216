"""Evaluation: challenger, champion and baselines score the same test rows, and the gates judge the challenger."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain import statistics
from include.domain.categories import as_text
from include.domain.errors import Corrupt, UserMistake
from include.domain.evaluation import gates
from include.domain.evaluation.gates import CHALLENGER, CHAMPION, Evidence
from include.domain.verdict import Check, Outcome, Verdict
from include.domain.windows import window_of
from include.ports.registry import Version
from include.ports.serving import Scorer
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.evaluation import importance

FORMAT = 1
#: Fewer windows than this say too little about how windows differ: then equal parts of their time stand for them.
MIN_WINDOWS = 5
PARTS = 8
Columns = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """`released` is what the verdict means here: under `dry_run` it is reported and holds nothing back."""

    record: Reference
    verdict: Verdict
    released: bool


def evaluate(
    spec: ModelSpec, dataset: Reference, models: Mapping[str, Reference], champion: Version | None, *,
    tables: Tables, scorer: Scorer, folder: Path,
) -> Reference:  # fmt: skip
    """Score the dataset's test rows with every model (`challenger` and the baselines by family) and the champion.

    Writes scores.npz and evaluation.json into `folder`/evaluation/; the reference is the latter's. A champion that
    cannot be scored is recorded as a fault, which the gates turn into an error. Raises Corrupt for another damaged part.
    """
    data = store.read(dataset)
    rows = read_test_rows(spec, data, tables)
    columns = raw_columns(rows, [c for c in rows.column_names if c != spec.columns.label])
    scores, faults = _scores(models, champion, columns, scorer)
    arrays = _arrays(spec, rows, scores) | _changed(spec, models[CHALLENGER], columns, scorer)
    groups = spans(arrays["times"], spec.window.seconds)
    out = folder / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "scores.npz", **arrays)
    everything = dict(models) | ({CHAMPION: champion.artifact} if champion else {})
    return store.write(out / "evaluation.json", {
        "format": FORMAT, "model": spec.name, "description": spec.description, "run": data["run"],
        "spec_digest": spec.digest,
        "dataset": {"uri": dataset.uri, "digest": dataset.digest}, "table_version": data["table_version"],
        "windows": data["windows"], "rows": len(rows), "positives": int(arrays["labels"].sum()),
        "models": {name: {"uri": model.uri, "digest": model.digest} for name, model in everything.items()},
        "champion": champion and champion.number,
        "metrics": {name: measure(spec, arrays["labels"], values, groups) for name, values in scores.items()},
        "faults": faults, "absent": _absent(spec, dataset, data, columns),
        "importance": importance.shares(scorer, models[CHALLENGER], columns, _features(spec, columns), spec.training.seed),
        "files": {"scores.npz": store.facts(out / "scores.npz")},
    })  # fmt: skip


def judge(spec: ModelSpec, evaluation: Reference, measured: Mapping[str, float]) -> Judged:
    """The gates' verdict on an evaluation, kept as verdict.json beside it. `measured`: what was measured elsewhere."""
    record = store.read(evaluation)
    evidence = evidence_of(spec, evaluation, {"model_mb": _megabytes(record["models"][CHALLENGER]), **measured})
    verdict = gates.judge(spec.gates, evidence, spec.training.seed)
    errors = tuple(Check(name, Outcome.ERROR, said) for name, said in record["faults"].items())
    verdict = Verdict(verdict.subject, (*errors, *verdict.checks))
    released = verdict.outcome is Outcome.PASS or spec.gates.dry_run
    sound = any(check.name == "scores" and check.outcome is Outcome.PASS for check in verdict.checks)
    effects = gates.slice_effects(spec.gates, evidence) if sound else []
    path = store.path_of(evaluation.uri).with_name("verdict.json")
    kept = {
        **verdict.to_dict(), "dry_run": spec.gates.dry_run, "released": released, "measured": dict(evidence.measured),
        "slices": [asdict(effect) for effect in effects], "slice_margin": spec.gates.slices.margin,
        "evaluation": {"uri": evaluation.uri, "digest": evaluation.digest},
    }  # fmt: skip
    return Judged(store.write(path, kept), verdict, released)


def judged(record: Reference) -> Judged:
    """The verdict as it was kept. Raises Corrupt when it was changed since."""
    kept = store.read(record)
    return Judged(record, Verdict.from_dict(kept), kept["released"])


def evidence_of(spec: ModelSpec, evaluation: Reference, measured: Mapping[str, float]) -> Evidence:
    """The arrays of an evaluation as the gates take them. Raises Corrupt when they are not those it recorded.

    Rows of one window depend on each other (one storm delays a whole day), so windows are the groups.
    """
    record = store.read(evaluation)
    path = store.path_of(evaluation.uri)
    store.check_files(path, record["files"])
    with np.load(path.with_name("scores.npz"), allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    scores = {name: arrays[name] for name in record["metrics"]}
    groups = spans(arrays["times"], spec.window.seconds)
    own = {
        name: (known["value"], (known["low"], known["high"]))
        for name, known in record["metrics"][CHALLENGER].items()
        if name in spec.gates.metrics
    }
    return Evidence(
        arrays["labels"], scores, _named(arrays, "slice:"), measured, own, _named(arrays, "changed:"), groups,
        record["absent"],
    )  # fmt: skip


def spans(times: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Which window of `length` seconds each row of `times` `[n]` lies in, or which part of the time, where windows are few."""
    windows: NDArray[np.int64] = times // length
    if len(times) == 0 or len(np.unique(windows)) >= MIN_WINDOWS:
        return windows
    first, last = times.min(), times.max()
    return np.asarray((times - first) * PARTS // (last - first + 1))


def own_metric(name: str, of: str) -> Callable[[Any, Any], float]:
    """The function that `gates.metrics.<name>.of` names. Raises UserMistake when there is none."""
    try:
        return cast("Callable[[Any, Any], float]", pkgutil.resolve_name(of))
    except (ImportError, AttributeError) as fault:
        raise UserMistake(f"gates.metrics.{name}: {of} cannot be imported: {fault}") from None


def measure(
    spec: ModelSpec, labels: NDArray[np.float64], scores: NDArray[np.float64], groups: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Each metric's value and interval, `low` to `high`, at the gates' confidence; none where a class is missing."""
    if not 0 < labels.sum() < len(labels):
        return {}
    found = {}
    confidence = spec.gates.champion.confidence
    for name in statistics.METRICS:
        value, (low, high) = statistics.estimate_with_interval(name, labels, scores, confidence, groups)
        found[name] = {"value": value, "low": low, "high": high}
    for name, asked in spec.gates.metrics.items():
        value, (low, high) = statistics.percentile_bootstrap(
            own_metric(name, asked.of), labels, scores, groups, confidence=confidence, seed=spec.training.seed
        )
        found[name] = {"value": value, "low": low, "high": high}
    return found


def raw_columns(rows: pa.Table, names: list[str]) -> Columns:
    """The columns as the encoding takes them: numbers as arrays with NaN for missing, all else as lists."""
    return {name: _raw(rows[name]) for name in names}


def read_test_rows(spec: ModelSpec, data: Mapping[str, Any], tables: Tables) -> pa.Table:
    """The labelled test rows in order of time, with every column of the table version that the dataset was made from."""
    windows = [window_of(label, spec.window) for label in data["windows"]["test"]]
    rows = tables.read(data["table"], windows, version=data["table_version"])
    rows = rows.filter(rows[spec.columns.label].is_valid()).sort_by(spec.columns.time)
    if len(rows) != data["rows"]["test"]:
        raise Corrupt(
            f"{data['table']} at version {data['table_version']} holds {len(rows):,} labelled rows of the test windows "
            f"and the dataset {data['rows']['test']:,}; run the features stage again"
        )
    return rows


def _scores(
    models: Mapping[str, Reference], champion: Version | None, columns: Columns, scorer: Scorer
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Of each model, and of the champion where it can be scored; else why not."""
    scores = {name: scorer.score(artifact, columns) for name, artifact in models.items()}
    if champion is None:
        return scores, {}
    try:
        _check_columns(champion.artifact, columns)
        return scores | {CHAMPION: scorer.score(champion.artifact, columns)}, {}
    except Corrupt as fault:
        return scores, {CHAMPION: f"version {champion.number} cannot be scored: {fault}"}


def _arrays(spec: ModelSpec, rows: pa.Table, scores: Mapping[str, NDArray[np.float64]]) -> Columns:
    """What the gates will need of the test rows; times in epoch seconds."""
    sliced = [name for name in spec.gates.slices.by if name in rows.column_names]
    return {
        "labels": rows[spec.columns.label].to_numpy().astype(np.float64),
        "times": rows[spec.columns.time].cast(pa.int64()).to_numpy() // 1_000_000,
        **scores, **{f"slice:{name}": _slice(rows[name]) for name in sliced},
    }  # fmt: skip


def _check_columns(artifact: Reference, columns: Columns) -> None:
    """Raises Corrupt for a model that knows columns which are gone: it would be scored as if all of them were missing."""
    known = store.read(artifact)["columns"]
    if gone := [name for name in (*known["categorical"], *known["numeric"]) if name not in columns]:
        raise Corrupt(f"it needs {', '.join(gone)}, and the table has no such column any more")


def _features(spec: ModelSpec, columns: Columns) -> list[str]:
    return [name for name in (*spec.columns.categorical, *spec.numeric) if name in columns]


def _absent(spec: ModelSpec, dataset: Reference, data: Mapping[str, Any], columns: Columns) -> dict[str, list[str]]:
    """Slices that the training windows have and the test rows have not, by column."""
    known = store.part(store.path_of(dataset.uri), data["files"], "encoding.json")["vocabulary"]
    asked = [name for name in spec.gates.slices.by if name in known and name in columns]
    return {name: sorted(set(known[name]) - {as_text(v) for v in columns[name]}) for name in asked}


def _changed(spec: ModelSpec, challenger: Reference, columns: Columns, scorer: Scorer) -> Columns:
    """The challenger's scores of the rows as each behaviour check changes them."""
    found = {}
    for check in spec.gates.behaviour:
        if check.column in columns:
            changed = {**columns, check.column: check.change(_listed(columns[check.column]))}
            found[f"changed:{check.name}"] = scorer.score(challenger, changed)
    return found


def _raw(column: pa.ChunkedArray) -> Any:
    if pa.types.is_floating(column.type):
        return column.to_numpy()
    return column.to_pylist()


def _listed(values: Any) -> list[Any]:
    """As a list with None for a missing number."""
    return [None if isinstance(v, float) and v != v else v for v in list(values)]  # noqa: PLR0124


def _slice(column: pa.ChunkedArray) -> NDArray[Any]:
    """Raw values as an array that needs no pickle: a missing text is the empty one."""
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray([as_text(v) or "" for v in column.to_pylist()], dtype=np.str_)


def _named(arrays: Mapping[str, Any], prefix: str) -> Columns:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _megabytes(model: Mapping[str, str]) -> float:
    """Size of the exported model, in units of 10^6 bytes."""
    manifest = store.read(Reference(model["uri"], model["digest"]))
    return float(manifest["files"][manifest.get("graph", "model.onnx")]["bytes"]) / 1e6
