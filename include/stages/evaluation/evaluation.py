"""Evaluation: challenger, champion and baselines score the same test rows, and the gates judge the challenger."""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import DatasetManifest
from include.artifacts.evaluation_record import EvaluationRecord, MetricEstimate
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.artifacts.verdict_record import VerdictRecord
from include.domain import statistics
from include.domain.categories import as_text
from include.domain.errors import Corrupt, UserMistake
from include.domain.evaluation import gates
from include.domain.evaluation.candidates import CHALLENGER, CHAMPION
from include.domain.evaluation.gates import Evidence
from include.domain.verdict import Check, Outcome, Verdict
from include.ports.registry import Version
from include.ports.serving import Scorer
from include.ports.tables import Tables
from include.spec.model_spec import ModelSpec
from include.stages.evaluation import importance
from include.stages.evaluation.evaluation_rows import (
    RawColumns,
    dependency_groups,
    raw_columns,
    read_test_rows,
    slice_values,
)

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class GateResult:
    """The gates' verdict with the reference to its record.

    `released` is what the verdict means here: under `dry_run` it is reported and holds nothing back.
    """

    record: Reference
    verdict: Verdict
    released: bool


def evaluate(
    spec: ModelSpec,
    dataset_reference: Reference,
    models: Mapping[str, Reference],
    champion: Version | None,
    *,
    tables: Tables,
    scorer: Scorer,
    folder: Path,
) -> Reference:
    """Score the dataset's test rows with every model (`challenger`, and the baselines by family) and the champion.

    Write scores.npz and evaluation.json into `folder`/evaluation/ and return the reference to the latter. A champion that
    cannot be scored is recorded with the reason, which the gates turn into an error. Raises Corrupt for another damaged part.
    """
    dataset = store.read(dataset_reference, DatasetManifest)
    rows = read_test_rows(spec, dataset, tables)
    columns = raw_columns(rows, [c for c in rows.column_names if c != spec.columns.label])
    scores, errors = _score_all(models, champion, columns, scorer)
    arrays = _arrays(spec, rows, scores) | _scores_of_changed_rows(spec, models[CHALLENGER], columns, scorer)
    groups = dependency_groups(arrays["times"], spec.window.seconds)
    out = folder / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "scores.npz", **arrays)
    record = EvaluationRecord(
        model=spec.name,
        description=spec.description,
        run=dataset.run,
        spec_digest=spec.digest,
        dataset=dataset_reference,
        table_version=dataset.table_version,
        windows=dataset.windows,
        rows=len(rows),
        positives=int(arrays["labels"].sum()),
        models=dict(models) | ({CHAMPION: champion.artifact} if champion else {}),
        champion=champion.number if champion else None,
        metrics={name: measure(spec, arrays["labels"], values, groups) for name, values in scores.items()},
        faults=errors,
        absent=_values_without_rows(spec, dataset_reference, dataset, columns),
        importance=importance.shares(scorer, models[CHALLENGER], columns, _features(spec, columns), spec.training.seed),
        files={"scores.npz": file_facts(out / "scores.npz")},
    )
    return store.write(out / "evaluation.json", record)


def judge(spec: ModelSpec, evaluation: Reference, measured: Mapping[str, float]) -> GateResult:
    """Judge an evaluation by the gates, write verdict.json beside it, and return the result.

    `measured` has what was measured of the challenger elsewhere, by name.
    """
    record = store.read(evaluation, EvaluationRecord)
    evidence = evidence_of(spec, evaluation, {"model_mb": _model_megabytes(record.challenger), **measured})
    verdict = gates.judge(spec.gates, evidence, spec.training.seed)
    errors = tuple(Check(name, Outcome.ERROR, reason) for name, reason in record.faults.items())
    verdict = Verdict(verdict.subject, (*errors, *verdict.checks))
    released = verdict.outcome is Outcome.PASS or spec.gates.dry_run
    is_sound = any(check.name == "scores" and check.outcome is Outcome.PASS for check in verdict.checks)
    reference = store.write(
        store.path_of(evaluation.uri).with_name("verdict.json"),
        VerdictRecord(
            subject=verdict.subject,
            outcome=verdict.outcome,
            checks=verdict.checks,
            dry_run=spec.gates.dry_run,
            released=released,
            measured=dict(evidence.measured),
            slices=tuple(gates.slice_effects(spec.gates, evidence)) if is_sound else (),
            slice_margin=spec.gates.slices.margin,
            evaluation=evaluation,
        ),
    )
    return GateResult(reference, verdict, released)


def result_of(verdict: Reference) -> GateResult:
    """Return the gates' result from its record. Raises Corrupt when the record was changed."""
    record = store.read(verdict, VerdictRecord)
    return GateResult(verdict, record.verdict, record.released)


def evidence_of(spec: ModelSpec, evaluation: Reference, measured: Mapping[str, float]) -> Evidence:
    """Return the arrays of an evaluation as the gates take them. Raises Corrupt when they are not those it recorded."""
    record = store.read(evaluation, EvaluationRecord)
    path = store.path_of(evaluation.uri)
    store.check_files(path, record.files)
    with np.load(path.with_name("scores.npz"), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    own_metrics = {
        name: (estimate.value, (estimate.low, estimate.high))
        for name, estimate in record.metrics[CHALLENGER].items()
        if name in spec.gates.metrics
    }
    return Evidence(
        labels=arrays["labels"],
        scores={name: arrays[name] for name in record.metrics},
        slices=_with_prefix(arrays, "slice:"),
        measured=measured,
        own_metrics=own_metrics,
        changed_scores=_with_prefix(arrays, "changed:"),
        groups=dependency_groups(arrays["times"], spec.window.seconds),
        values_without_rows=record.absent,
    )


def metric_function(name: str, path: str) -> Callable[[Any, Any], float]:
    """Return the function that `gates.metrics.<name>.of` names by its path. Raises UserMistake when there is none."""
    try:
        return cast("Callable[[Any, Any], float]", pkgutil.resolve_name(path))
    except (ImportError, AttributeError) as error:
        raise UserMistake(f"gates.metrics.{name}: {path} cannot be imported: {error}") from None


def measure(
    spec: ModelSpec, labels: NDArray[np.float64], scores: NDArray[np.float64], groups: NDArray[np.int64]
) -> dict[str, MetricEstimate]:
    """Return each metric with its interval at the gates' confidence; none where a class is missing."""
    if not 0 < labels.sum() < len(labels):
        return {}
    estimates = {}
    confidence = spec.gates.champion.confidence
    for name in statistics.METRICS:
        value, (low, high) = statistics.estimate_with_interval(name, labels, scores, confidence, groups)
        estimates[name] = MetricEstimate(value, low, high)
    for name, metric in spec.gates.metrics.items():
        function = metric_function(name, metric.of)
        value, (low, high) = statistics.percentile_bootstrap(
            function, labels, scores, groups, confidence=confidence, seed=spec.training.seed
        )
        estimates[name] = MetricEstimate(value, low, high)
    return estimates


def _score_all(
    models: Mapping[str, Reference], champion: Version | None, columns: RawColumns, scorer: Scorer
) -> tuple[Scores, dict[str, str]]:
    """Return the scores `[n]` of each model and of the champion; and the reason, where the champion cannot be scored."""
    scores = {name: scorer.score(artifact, columns) for name, artifact in models.items()}
    if champion is None:
        return scores, {}
    try:
        _check_columns(champion.artifact, columns)
        return scores | {CHAMPION: scorer.score(champion.artifact, columns)}, {}
    except Corrupt as error:
        return scores, {CHAMPION: f"version {champion.number} cannot be scored: {error}"}


def _arrays(spec: ModelSpec, rows: pa.Table, scores: Scores) -> RawColumns:
    """Return the arrays of scores.npz, of which the gates need labels, scores and slices; times are epoch seconds."""
    sliced = [name for name in spec.gates.slices.by if name in rows.column_names]
    return {
        "labels": rows[spec.columns.label].to_numpy().astype(np.float64),
        "times": rows[spec.columns.time].cast(pa.int64()).to_numpy() // 1_000_000,
        **scores,
        **{f"slice:{name}": slice_values(rows[name]) for name in sliced},
    }


def _check_columns(artifact: Reference, columns: RawColumns) -> None:
    """Raise Corrupt for a model of columns that are gone: it would be scored as if they were missing in every row."""
    features = store.read(artifact, ModelManifest).columns.features
    if gone := [name for name in features if name not in columns]:
        raise Corrupt(f"it needs {', '.join(gone)}, and the table has no such column any more")


def _features(spec: ModelSpec, columns: RawColumns) -> list[str]:
    return [name for name in (*spec.columns.categorical, *spec.numeric) if name in columns]


def _values_without_rows(
    spec: ModelSpec, reference: Reference, dataset: DatasetManifest, columns: RawColumns
) -> dict[str, tuple[str, ...]]:
    """Return by column of `gates.slices.by` the values that the train windows hold and no test row has."""
    encoding = store.read_json(store.path_of(reference.uri), dataset.files, "encoding.json")
    vocabulary = encoding["vocabulary"]
    names = [name for name in spec.gates.slices.by if name in vocabulary and name in columns]
    return {name: tuple(sorted(set(vocabulary[name]) - {as_text(v) for v in columns[name]})) for name in names}


def _scores_of_changed_rows(spec: ModelSpec, challenger: Reference, columns: RawColumns, scorer: Scorer) -> Scores:
    """Return the challenger's scores `[n]` of the rows as each behaviour check changes them."""
    scores = {}
    for check in spec.gates.behaviour:
        if check.column in columns:
            changed = {**columns, check.column: check.change(_with_none(columns[check.column]))}
            scores[f"changed:{check.name}"] = scorer.score(challenger, changed)
    return scores


def _with_none(values: Any) -> list[Any]:
    """Return the values as a list with None for a missing number."""
    return [None if isinstance(v, float) and v != v else v for v in list(values)]  # noqa: PLR0124


def _with_prefix(arrays: Mapping[str, Any], prefix: str) -> RawColumns:
    """Return the arrays whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _model_megabytes(artifact: Reference) -> float:
    """Return the size of the exported graph in units of 10^6 bytes."""
    manifest = store.read(artifact, ModelManifest)
    return manifest.files[manifest.graph].bytes / 1e6
