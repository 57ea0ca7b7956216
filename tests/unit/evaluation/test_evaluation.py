"""Everyone is scored on the same test rows, and what cannot be scored blocks the release instead of vanishing."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest, SplitCounts, SplitWindows
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.files import file_facts
from include.artifacts.store import Reference
from include.domain.errors import Corrupt, UserMistake
from include.domain.events import ChallengerJudged, VersionRegistered
from include.domain.verdict import Outcome
from include.ports.registry import Version
from include.reports import model_card
from include.spec.model_spec import ModelSpec
from include.stages.evaluation import evaluation
from include.stages.evaluation.evaluation_rows import dependency_groups
from include.stages.release import promotion
from include.stages.release.promotion import ReleaseServices
from tests.fakes import FakeLedger, FakeRegistry, FakeScorer, write_manifest
from tests.memory import MemoryTables
from tests.records import dataset_manifest
from tests.unit.toy import TOY, toy

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 6000
CAUSE = "logloss: .742 where the test windows had .454"
#: What the serving check measures.
SERVED = {"score_gap": 0.0}
SPEC = toy(gates={"min_auc": 0.6, "baselines": ["logistic"], "slices": {"by": ["c"]},
                  "behaviour": [{"column": "x", "add": 1.0, "expect": "rises"}]})  # fmt: skip


def sharp(columns: Any) -> NDArray[np.float64]:
    """The true chance."""
    return np.asarray(1 / (1 + np.exp(-np.nan_to_num(np.asarray(columns["x"], dtype=np.float64)))))


def blunt(columns: Any) -> NDArray[np.float64]:
    return 0.5 + 0.1 * (sharp(columns) - 0.5)


@dataclass
class World:
    folder: Path
    rows: pa.Table
    dataset: Reference
    models: dict[str, Reference]
    champion: Version
    scorer: FakeScorer

    @property
    def tables(self) -> MemoryTables:
        """The features table with these rows at version 0."""
        tables = MemoryTables()
        tables.append("features", self.rows, "landed", "once")
        return tables

    def evaluate(self, spec: ModelSpec = SPEC, champion: Version | None = None) -> Reference:
        return evaluation.evaluate(
            spec, self.dataset, self.models, champion, tables=self.tables, scorer=self.scorer, folder=self.folder
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    random = np.random.default_rng(3)
    x = random.normal(size=ROWS)
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-x))).astype(np.int8)
    at = [START + timedelta(minutes=int(m)) for m in random.integers(0, 2 * 24 * 60, ROWS)]
    rows = pa.table({
        "at": pa.array(at, pa.timestamp("us", "UTC")),
        "key": [str(i) for i in range(ROWS)],
        "x": [None if i % 50 == 0 else v for i, v in enumerate(x)],
        "c": random.choice(np.array(["a", "b", None]), ROWS).tolist(),
        "y": pa.array([None if i < 10 else int(v) for i, v in enumerate(labels)], pa.int8()),
        "window": [t.strftime("%Y-%m-%d") for t in at],
    })  # fmt: skip
    test_rows = sum(
        w == "2026-01-02" and y is not None
        for w, y in zip(rows["window"].to_pylist(), rows["y"].to_pylist(), strict=True)
    )
    encoding = tmp_path / "dataset" / "encoding.json"
    store.write(encoding, {"vocabulary": {"c": {"a": 2, "b": 3, "gone": 4}}})
    manifest = dataset_manifest(
        files={encoding.name: file_facts(encoding)},
        rows=SplitCounts(ROWS, 0, test_rows),
        windows=SplitWindows(("2026-01-01",), (), ("2026-01-02",)),
    )
    dataset = store.write(tmp_path / "dataset" / "dataset.json", manifest)
    names = {"challenger": "dcn", "logistic": "logistic", "champion": "old"}
    models = {name: write_manifest(tmp_path / folder, folder, dataset, SPEC.digest) for name, folder in names.items()}
    champion = Version("toy", "1", models.pop("champion"), {})
    scorer = FakeScorer({models["challenger"].uri: sharp, models["logistic"].uri: blunt, champion.artifact.uri: blunt})
    return World(tmp_path, rows, dataset, models, champion, scorer)


def test_all_candidates_score_the_labelled_test_rows_in_order_of_time(world: World) -> None:
    record = store.read(world.evaluate(champion=world.champion), EvaluationRecord)
    with np.load(world.folder / "evaluation" / "scores.npz") as arrays:
        assert {"labels", "times", "challenger", "champion", "logistic"} <= set(arrays.files)
        assert len({len(arrays[name]) for name in arrays.files}) == 1
        assert (np.diff(arrays["times"]) >= 0).all()
        assert arrays["times"].min() >= (START + DAY).timestamp()
    auc = record.metrics["challenger"]["auc"]
    assert auc.low < auc.value < auc.high
    assert record.champion == "1"
    assert sum(record.importance.values()) == pytest.approx(1)


def test_a_better_challenger_passes(world: World) -> None:
    result = evaluation.judge(SPEC, world.evaluate(champion=world.champion), SERVED)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reasons
    assert result.released
    names = {check.name for check in result.verdict.checks}
    assert {"auc", "against champion", "against logistic", "slices of c", "x+1 rises"} <= names
    assert evaluation.result_of(result.record) == result


def test_a_worse_challenger_is_held_back_with_its_reasons(world: World) -> None:
    world.scorer.models[world.models["challenger"].uri] = blunt
    world.scorer.models[world.champion.artifact.uri] = sharp
    result = evaluation.judge(SPEC, world.evaluate(champion=world.champion), SERVED)
    assert result.verdict.outcome is Outcome.FAIL
    assert not result.released
    assert any("the champion's" in reason for reason in result.verdict.reasons)


def test_a_dry_run_says_the_same_and_holds_nothing_back(world: World) -> None:
    world.scorer.models[world.models["challenger"].uri] = lambda columns: np.full(len(columns["x"]), 0.5)
    spec = toy(gates={"min_auc": 0.6, "baselines": [], "dry_run": True})
    result = evaluation.judge(spec, world.evaluate(spec), {})
    assert result.verdict.outcome is Outcome.FAIL
    assert result.released


def test_a_champion_that_cannot_be_scored_is_an_error_not_a_first_release(world: World) -> None:
    world.scorer.models[world.champion.artifact.uri] = None
    result = evaluation.judge(SPEC, world.evaluate(champion=world.champion), SERVED)
    assert result.verdict.outcome is Outcome.ERROR
    assert "version 1 cannot be scored" in result.verdict.reasons[0]


def test_a_configured_measure_that_nobody_took_fails(world: World) -> None:
    spec = toy(gates={"max_p99_ms": 5, "max_model_mb": 1, "baselines": []})
    reference = world.evaluate(spec)
    assert "p99_ms was not measured" in evaluation.judge(spec, reference, {}).verdict.reasons[0]
    assert evaluation.judge(spec, reference, {**SERVED, "p99_ms": 2.0}).released


def test_a_slice_that_training_knew_and_the_test_rows_have_not_is_named(world: World) -> None:
    result = evaluation.judge(SPEC, world.evaluate(champion=world.champion), SERVED)
    (seen,) = [check for check in result.verdict.checks if check.name == "slices of c"]
    assert seen.sentence.endswith("not judged, with fewer than 500 rows: gone (0)")


def test_a_metric_of_the_users_own_is_computed_for_every_candidate(world: World) -> None:
    spec = toy(
        gates={"baselines": ["logistic"], "metrics": {"brier": {"of": "sklearn.metrics:brier_score_loss", "max": 0.1}}}
    )
    reference = world.evaluate(spec)
    brier = {name: metrics["brier"] for name, metrics in store.read(reference, EvaluationRecord).metrics.items()}
    assert brier["challenger"].low < brier["challenger"].value < brier["challenger"].high < 0.25
    assert brier["challenger"].value < brier["logistic"].value
    assert "brier is 0.2" in evaluation.judge(spec, reference, SERVED).verdict.reasons[0]


def test_a_metric_that_is_nowhere_is_named(world: World) -> None:
    spec = toy(gates={"baselines": [], "metrics": {"brier": {"of": "sklearn.metrics:brier_lost", "max": 0.1}}})
    with pytest.raises(UserMistake, match=r"gates\.metrics\.brier: sklearn\.metrics:brier_lost cannot be imported"):
        world.evaluate(spec)


def test_test_windows_without_a_labelled_row_are_an_error_that_says_so(world: World) -> None:
    unknown = pa.nulls(len(world.rows), pa.int8())
    world.rows = world.rows.set_column(world.rows.schema.get_field_index("y"), "y", unknown)
    manifest = replace(store.read(world.dataset, DatasetManifest), rows=SplitCounts(0, 0, 0))
    world.dataset = store.write(world.folder / "dataset" / "empty.json", manifest)
    result = evaluation.judge(SPEC, world.evaluate(champion=world.champion), SERVED)
    assert result.verdict.outcome is Outcome.ERROR
    assert not result.released
    assert "the test windows hold no labelled row" in result.verdict.reasons[0]


@pytest.mark.parametrize(("days", "groups"), [(14, 14), (5, 5), (4, 8), (1, 8)])
def test_windows_are_the_groups_and_parts_of_the_time_where_windows_are_few(days: int, groups: int) -> None:
    times = np.arange(days * 24) * 3600 + int(START.timestamp())
    assert len(np.unique(dependency_groups(times, 86400))) == groups


def test_rows_that_changed_since_the_dataset_was_made_are_noticed(world: World) -> None:
    world.rows = world.rows.slice(100)
    with pytest.raises(Corrupt, match="run the features stage again"):
        world.evaluate()


def test_changed_scores_are_not_judged(world: World) -> None:
    reference = world.evaluate()
    np.savez(world.folder / "evaluation" / "scores.npz", labels=np.ones(3))
    with pytest.raises(Corrupt, match=r"scores\.npz"):
        evaluation.judge(SPEC, reference, SERVED)


def test_registering_twice_gives_one_version_with_its_story(world: World) -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    reference = world.evaluate(champion=world.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    first = promotion.register("toy", reference, result, ReleaseServices(registry, ledger))
    again = promotion.register("toy", reference, result, ReleaseServices(registry, ledger))
    assert first.number == again.number == "1"
    assert len(ledger.read("toy", VersionRegistered)) == 1
    assert (again.tags["verdict"], again.tags["run"], again.tags["family"]) == ("pass", "r1", "dcn")
    assert " to " in again.tags["test_auc"]


def test_the_evidence_is_attached_whatever_the_verdict(world: World) -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    world.scorer.models[world.models["challenger"].uri] = blunt
    world.scorer.models[world.champion.artifact.uri] = sharp
    reference = world.evaluate(champion=world.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    assert result.verdict.reasons
    for _ in range(2):
        pages = model_card.write(reference, result.record, CAUSE)
        description = model_card.markdown_path(reference).read_text()
        promotion.publish("toy", reference, result, pages, description, ReleaseServices(registry, ledger))
    assert {"evaluation.json", "verdict.json", "card.html"} <= set(registry.attached["m1/evaluation"])
    (event,) = ledger.read("toy", ChallengerJudged)
    assert list(event.reasons) == result.verdict.reasons
    described = registry.described["m1"]
    assert (described["verdict"], described["reasons"]) == ("fail", "\n".join(result.verdict.reasons))
    assert described["text"].startswith("# toy, dcn of run r1: fail")


def test_a_rejected_version_keeps_its_reasons() -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    registry.add("toy", 1)
    promotion.reject("toy", "1", ["too dear"], "ada", START, ReleaseServices(registry, ledger))
    tags = registry.version("toy", "1").tags
    assert (tags["approval"], tags["rejected_by"], tags["reasons"]) == ("rejected", "ada", "too dear")


def test_the_card_is_one_page_with_its_plots_inside(world: World) -> None:
    spec = toy(gates={"baselines": ["logistic"], "slices": {"by": ["c"]}}, description="Is y <really> true?")
    reference = world.evaluate(spec, champion=world.champion)
    result = evaluation.judge(spec, reference, {})
    pages = {page.name: page.read_text() for page in model_card.write(reference, result.record, CAUSE)}
    assert set(pages) == {"card.md", "card.html", "roc.svg", "calibration.svg", "loss.svg", "slices.svg"}
    assert pages["card.html"].count("<svg") == 4
    assert "Is y &lt;really&gt; true?" in pages["card.html"]
    assert "http" not in pages["card.html"].replace("http://www.w3.org/2000/svg", ""), "loads nothing from elsewhere"
    for said in (CAUSE, "champion (version 1)", "2026-01-02", "Limits:", "against logistic", "| c=a | "):
        assert said in pages["card.md"]
    assert model_card.markdown_path(reference).read_text() == pages["card.md"]
    for name in ("roc.svg", "calibration.svg", "loss.svg", "slices.svg"):
        ElementTree.fromstring(pages[name])


def test_the_card_of_a_first_release_says_that_there_is_no_champion(world: World) -> None:
    reference = world.evaluate()
    pages = model_card.write(reference, evaluation.judge(SPEC, reference, SERVED).record, CAUSE)
    assert "no champion yet" in pages[0].read_text()
    assert "slices.svg" not in {page.name for page in pages}


def test_scores_that_are_no_numbers_fail_and_still_have_a_card(world: World) -> None:
    world.scorer.models[world.models["challenger"].uri] = lambda columns: np.full(len(columns["x"]), np.nan)
    reference = world.evaluate(champion=world.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    assert result.verdict.outcome is Outcome.FAIL
    assert "are not numbers" in model_card.write(reference, result.record, CAUSE)[0].read_text()


def test_a_champion_whose_column_is_gone_is_not_scored_as_if_it_were_missing(world: World) -> None:
    spec = toy(columns={**TOY["columns"], "categorical": []}, gates={"baselines": []})
    world.rows = world.rows.drop_columns(["c"])
    record = store.read(world.evaluate(spec, champion=world.champion), EvaluationRecord)
    assert "it needs c" in record.faults["champion"]
    assert "champion" not in record.metrics
