"""A model that is one new YAML file: customers in a text file of its own shape, all the way to a dataset, on the real parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from include.artifacts import store
from include.artifacts.dataset_manifest import DatasetManifest, SplitCounts
from include.artifacts.store import Reference
from include.artifacts.window_records import LandingReport
from include.domain.errors import UserMistake
from include.domain.verdict import Outcome, Verdict
from include.domain.windows import Window
from include.settings import Settings
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.stages.data import expectation_suggestions, landing, validation
from include.stages.features import features
from include.stages.training import dataset as assembly
from include.stages.training import time_travel
from include.wiring import Parts
from tests.memory import MemoryRecords, MemoryTables

pytestmark = pytest.mark.filterwarnings("ignore")  # of Great Expectations' own making

SPEC = """
name: churn
description: Will this customer leave?
source: {path: "inbox/churn/*.txt", format: csv, delimiter: ";", nulls: ["", "NA"]}
columns:
  time: seen                 # seconds since 1970
  label: has_left
  keys: [visit]
  numeric: [fee, minutes]
  categorical: [plan, region]
  ignored: [remark]
label_delay: 1d
features:
  time_parts: [hour]
  min_frequency: 5
  aggregates:
    groups:
      - {by: [region], over: [1d], mean: [has_left]}
training: {validate_windows: 2, test_windows: 2}
schedule: {start: 2026-03-01T00:00:00Z}
"""
HEADER = "remark;visit;seen;plan;region;minutes;fee;has_left\n"
START, DAY = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)
DAYS, VISITS = 10, 60
WINDOWS = [Window(START + n * DAY, START + (n + 1) * DAY) for n in range(DAYS)]
NORTH, SOUTH = 1 / 3, 1 / 5  #: of whom has left, every day


def line(day: int, n: int, fee: str | None = None, region: str | None = None) -> str:
    seconds = int((START + day * DAY).timestamp()) + n * 20 * 60
    left = n % 3 == 0 if n % 2 == 0 else n % 5 == 0
    minutes = "NA" if n == 7 else str(n * 10)
    where = region or ("south" if n % 2 else "north")
    return f"a, b;{day}-{n};{seconds};{('basic', 'plus')[n % 3 == 0]};{where};{minutes};{fee or 9.5 + n};{str(left).lower()}\n"


def lines(first: int, last: int) -> list[str]:
    """Newest first, as no one would sort them."""
    return [line(day, n) for day in range(first, last) for n in range(VISITS)][::-1]


@dataclass(frozen=True)
class World:
    home: Path
    spec: ModelSpec
    parts: Parts

    def give(self, name: str, rows: list[str]) -> None:
        (self.home / "inbox" / "churn" / name).write_text(HEADER + "".join(rows))

    def land(self, run: str, windows: list[Window]) -> LandingReport:
        parts = self.parts
        source, tables, records = parts.source(self.spec), parts.tables(self.spec), parts.records(self.spec)
        return landing.land(self.spec, windows, source, tables, records, run)

    def validate(self, run: str, windows: list[Window], spec: ModelSpec) -> list[Verdict]:
        tables, validator, records = self.parts.tables(spec), self.parts.validator(spec), self.parts.records(spec)
        return list(validation.validate(spec, windows, tables, validator, records, run).values())

    def build(self, run: str) -> list[str]:
        return features.build(self.spec, WINDOWS, self.parts.feature_services(self.spec), run)

    def newest(self) -> pl.DataFrame:
        rows = self.parts.tables(self.spec).read("features", WINDOWS)
        return pl.DataFrame(pl.from_arrow(rows)).sort("seen", "visit")


@dataclass(frozen=True)
class Landed:
    world: World
    report: LandingReport
    verdicts: list[Verdict]
    built: list[str]
    dataset: Reference
    proposed: str


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landed]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "inbox" / "churn").mkdir(parents=True)
    (home / "models" / "churn.yaml").write_text(SPEC)
    world = World(home, find("churn", home / "models"), Parts(Settings(home=home)))
    world.give("a.txt", [*lines(0, 5), line(1, 3), line(4, 60, fee="free")])
    world.give("b.txt", lines(5, DAYS))
    report, verdicts = world.land("first", WINDOWS), world.validate("first", WINDOWS, world.spec)
    built, tables = world.build("first"), world.parts.tables(world.spec)
    dataset = assembly.assemble(world.spec, START + 30 * DAY, tables, "first", home / "dataset")
    proposed = expectation_suggestions.suggest(world.spec, tables, world.parts.records(world.spec))
    yield Landed(world, report, verdicts, built, dataset, proposed)


def test_every_row_is_accounted_for_and_typed_as_the_yaml_says(landed: Landed) -> None:
    report = landed.report
    assert (report.read, report.landed, report.quarantined, report.duplicates) == (602, 600, 1, 1)
    rows = pl.DataFrame(pl.from_arrow(landed.world.parts.tables(landed.world.spec).read("landed", WINDOWS[1:2])))
    row = rows.filter(pl.col("visit") == "1-7").to_dicts()[0]
    assert row["seen"] == START + DAY + timedelta(minutes=140)
    names = ("fee", "minutes", "plan", "region", "has_left")
    assert [row[name] for name in names] == [16.5, None, "basic", "south", 0]
    assert "remark" not in rows.columns
    bad = landed.world.parts.tables(landed.world.spec).read("quarantine", WINDOWS).to_pylist()
    assert [(r["column"], r["reason"]) for r in bad] == [("fee", "not a finite number: free")]


def test_windows_pass_and_features_hold_what_was_known_of_the_region(landed: Landed) -> None:
    assert [v.outcome for v in landed.verdicts] == [Outcome.PASS] * DAYS
    assert len(landed.built) == DAYS
    rows = landed.world.newest()
    mean = pl.col("has_left_mean_region_1d")
    assert rows.filter(pl.col("seen") < START + DAY).select(mean).null_count().item() == VISITS
    later = rows.filter(pl.col("seen") >= START + 2 * DAY)
    expected = later["region"].replace_strict({"north": NORTH, "south": SOUTH})
    assert later.select(mean).to_series().to_list() == pytest.approx(expected.to_list())


def test_the_dataset_has_every_window_in_its_split(landed: Landed) -> None:
    manifest = store.read(landed.dataset, DatasetManifest)
    assert manifest.rows == SplitCounts(train=6 * VISITS, validate=2 * VISITS, test=2 * VISITS)
    assert manifest.positives.test == 2 * (10 + 6)
    folder = Path(landed.dataset.uri).parent
    assert np.load(folder / "train.ids.npy").shape == (360, 3)  # plan, region, hour
    missing = np.isnan(np.load(folder / "train.numbers.npy")).sum(axis=0)
    # fee; minutes, NA once a day; of a region nothing is known on the first day and in the second's first hour
    assert missing.tolist() == [0, 6, VISITS + 3]


def test_the_proposed_expectations_load_in_a_spec_and_pass_where_they_were_learnt(landed: Landed) -> None:
    spec = with_expectations(landed)
    assert len(spec.validation.expectations) == 9
    assert "{column: region, value_set: [north, south], mostly: 0.99}" in landed.proposed
    verdicts = landed.world.validate("proposed", WINDOWS, spec)
    assert [v.outcome for v in verdicts] == [Outcome.PASS] * DAYS
    assert not [c.sentence for v in verdicts for c in v.checks if c.sentence.startswith("warning")]


def test_a_spoiled_window_does_not_pass_the_proposed_expectations(landed: Landed) -> None:
    spoiled = Window(START + DAYS * DAY, START + (DAYS + 1) * DAY)
    landed.world.give("c.txt", [line(DAYS, n, fee=str(-100 * n), region="nowhere") for n in range(VISITS)])
    landed.world.land("spoiled", [spoiled])
    (verdict,) = landed.world.validate("spoiled", [spoiled], with_expectations(landed))
    assert verdict.outcome is Outcome.FAIL
    assert "expect_column_values_to_be_in_set.region" in verdict.reasons[0]
    assert any(c.sentence.startswith("warning: expect_column_values_to_be_between.fee") for c in verdict.checks)


def test_a_dataset_gives_its_very_rows_after_its_windows_were_landed_again(landed: Landed) -> None:
    world, tables = landed.world, landed.world.parts.tables(landed.world.spec)
    before = world.newest()
    world.give("a.txt", [line(day, n, fee="1") for day in range(5) for n in range(VISITS)])
    world.land("corrected", WINDOWS)
    world.validate("corrected", WINDOWS, world.spec)
    world.build("corrected")
    assert (world.newest().filter(pl.col("seen") < START + 5 * DAY)["fee"] == 1).all()
    rows = time_travel.rows(store.read(landed.dataset, DatasetManifest), tables)
    assert pl.concat(rows.values()).select(before.columns).equals(before)
    labels = np.load(Path(landed.dataset.uri).parent / "train.labels.npy")
    assert np.array_equal(rows["train"]["has_left"].to_numpy(), labels)


def test_too_few_windows_teach_nothing(landed: Landed) -> None:
    with pytest.raises(UserMistake, match=r"churn: expectations are learnt from 3 windows at least, and 0 landed"):
        expectation_suggestions.suggest(landed.world.spec, MemoryTables(), MemoryRecords())


def with_expectations(landed: Landed) -> ModelSpec:
    """The spec with the proposal pasted in, as a user does."""
    folder: Any = landed.world.home / "with_expectations"
    folder.mkdir(exist_ok=True)
    (folder / "churn.yaml").write_text(f"{SPEC}validation:\n  expectations:\n{landed.proposed}\n")
    return find("churn", folder)
