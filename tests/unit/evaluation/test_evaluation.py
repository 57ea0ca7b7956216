"""Everyone is scored on the same test rows, and what cannot be scored blocks the release instead of vanishing."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest, SplitCounts
from include.artifacts.evaluation_record import EvaluationRecord
from include.domain.errors import Corrupt, UserMistake
from include.domain.verdict import Outcome
from include.stages.evaluation import evaluation
from include.stages.evaluation.evaluation_rows import dependency_groups
from tests.unit.evaluation.candidates import DAY, SERVED, SPEC, START, Candidates, blunt, sharp
from tests.unit.toy import TOY, toy


def test_all_candidates_score_the_labelled_test_rows_in_order_of_time(candidates: Candidates) -> None:
    record = store.read(candidates.evaluate(champion=candidates.champion), EvaluationRecord)
    with np.load(candidates.folder / "evaluation" / "scores.npz") as arrays:
        assert {"labels", "times", "challenger", "champion", "logistic"} <= set(arrays.files)
        assert len({len(arrays[name]) for name in arrays.files}) == 1
        assert (np.diff(arrays["times"]) >= 0).all()
        assert arrays["times"].min() >= (START + DAY).timestamp()
    auc = record.metrics["challenger"]["auc"]
    assert auc.low < auc.value < auc.high
    assert record.champion == "1"
    assert sum(record.importance.values()) == pytest.approx(1)


def test_a_better_challenger_passes(candidates: Candidates) -> None:
    result = evaluation.judge(SPEC, candidates.evaluate(champion=candidates.champion), SERVED)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reasons
    assert result.released
    names = {check.name for check in result.verdict.checks}
    assert {"auc", "against champion", "against logistic", "slices of c", "x+1 rises"} <= names
    assert evaluation.result_of(result.record) == result


def test_a_worse_challenger_is_held_back_with_its_reasons(candidates: Candidates) -> None:
    candidates.scorer.models[candidates.models["challenger"].uri] = blunt
    candidates.scorer.models[candidates.champion.artifact.uri] = sharp
    result = evaluation.judge(SPEC, candidates.evaluate(champion=candidates.champion), SERVED)
    assert result.verdict.outcome is Outcome.FAIL
    assert not result.released
    assert any("the champion's" in reason for reason in result.verdict.reasons)


def test_a_dry_run_says_the_same_and_holds_nothing_back(candidates: Candidates) -> None:
    candidates.scorer.models[candidates.models["challenger"].uri] = lambda columns: np.full(len(columns["x"]), 0.5)
    spec = toy(gates={"min_auc": 0.6, "baselines": [], "dry_run": True})
    result = evaluation.judge(spec, candidates.evaluate(spec), {})
    assert result.verdict.outcome is Outcome.FAIL
    assert result.released


def test_a_champion_that_cannot_be_scored_is_an_error_not_a_first_release(candidates: Candidates) -> None:
    candidates.scorer.models[candidates.champion.artifact.uri] = None
    result = evaluation.judge(SPEC, candidates.evaluate(champion=candidates.champion), SERVED)
    assert result.verdict.outcome is Outcome.ERROR
    assert "version 1 cannot be scored" in result.verdict.reasons[0]


def test_a_configured_measure_that_nobody_took_fails(candidates: Candidates) -> None:
    spec = toy(gates={"max_p99_ms": 5, "max_model_mb": 1, "baselines": []})
    reference = candidates.evaluate(spec)
    assert "p99_ms was not measured" in evaluation.judge(spec, reference, {}).verdict.reasons[0]
    assert evaluation.judge(spec, reference, {**SERVED, "p99_ms": 2.0}).released


def test_a_slice_that_training_knew_and_the_test_rows_have_not_is_named(candidates: Candidates) -> None:
    result = evaluation.judge(SPEC, candidates.evaluate(champion=candidates.champion), SERVED)
    (slices,) = [check for check in result.verdict.checks if check.name == "slices of c"]
    assert slices.sentence.endswith("not judged, with fewer than 500 rows: gone (0)")


def test_a_metric_of_the_users_own_is_computed_for_every_candidate(candidates: Candidates) -> None:
    spec = toy(
        gates={"baselines": ["logistic"], "metrics": {"brier": {"of": "sklearn.metrics:brier_score_loss", "max": 0.1}}}
    )
    reference = candidates.evaluate(spec)
    brier = {name: metrics["brier"] for name, metrics in store.read(reference, EvaluationRecord).metrics.items()}
    assert brier["challenger"].low < brier["challenger"].value < brier["challenger"].high < 0.25
    assert brier["challenger"].value < brier["logistic"].value
    assert "brier is 0.2" in evaluation.judge(spec, reference, SERVED).verdict.reasons[0]


def test_a_metric_that_is_nowhere_is_named(candidates: Candidates) -> None:
    spec = toy(gates={"baselines": [], "metrics": {"brier": {"of": "sklearn.metrics:brier_lost", "max": 0.1}}})
    with pytest.raises(UserMistake, match=r"gates\.metrics\.brier: sklearn\.metrics:brier_lost cannot be imported"):
        candidates.evaluate(spec)


def test_test_windows_without_a_labelled_row_are_an_error_that_says_so(candidates: Candidates) -> None:
    unknown = pa.nulls(len(candidates.rows), pa.int8())
    candidates.rows = candidates.rows.set_column(candidates.rows.schema.get_field_index("y"), "y", unknown)
    manifest = replace(store.read(candidates.dataset, DatasetManifest), rows=SplitCounts(0, 0, 0))
    candidates.dataset = store.write(candidates.folder / "dataset" / "empty.json", manifest)
    result = evaluation.judge(SPEC, candidates.evaluate(champion=candidates.champion), SERVED)
    assert result.verdict.outcome is Outcome.ERROR
    assert not result.released
    assert "the test windows hold no labelled row" in result.verdict.reasons[0]


@pytest.mark.parametrize(("days", "groups"), [(14, 14), (5, 5), (4, 8), (1, 8)])
def test_windows_are_the_groups_and_parts_of_the_time_where_windows_are_few(days: int, groups: int) -> None:
    times = np.arange(days * 24) * 3600 + int(START.timestamp())
    assert len(np.unique(dependency_groups(times, 86400))) == groups


def test_rows_that_changed_since_the_dataset_was_made_are_noticed(candidates: Candidates) -> None:
    candidates.rows = candidates.rows.slice(100)
    with pytest.raises(Corrupt, match="run the features stage again"):
        candidates.evaluate()


def test_changed_scores_are_not_judged(candidates: Candidates) -> None:
    reference = candidates.evaluate()
    np.savez(candidates.folder / "evaluation" / "scores.npz", labels=np.ones(3))
    with pytest.raises(Corrupt, match=r"scores\.npz"):
        evaluation.judge(SPEC, reference, SERVED)


def test_a_champion_whose_column_is_gone_is_not_scored_as_if_it_were_missing(candidates: Candidates) -> None:
    spec = toy(columns={**TOY["columns"], "categorical": []}, gates={"baselines": []})
    candidates.rows = candidates.rows.drop_columns(["c"])
    record = store.read(candidates.evaluate(spec, champion=candidates.champion), EvaluationRecord)
    assert "it needs c" in record.faults["champion"]
    assert "champion" not in record.metrics
