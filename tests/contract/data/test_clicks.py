"""The click stream: the same for a seed, its best AUC known, and landed like any other source."""

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.domain.windows import Window, parse_utc
from include.local import clicks
from include.local.clicks import Clicks, PlannedDrift
from include.local.csv_formats import FORMATS
from include.spec.data import SourceSpec
from include.spec.loading import find
from include.stages.data import landing

DAY = date(2024, 1, 1)


def test_a_seed_gives_the_same_day_whatever_was_asked_before() -> None:
    stream = Clicks(seed=3)
    stream.day(date(2024, 1, 2), 50)
    assert stream.day(DAY, 200).rows.equals(Clicks(seed=3).day(DAY, 200).rows)
    assert not stream.day(DAY, 200).rows.equals(Clicks(seed=4).day(DAY, 200).rows)


def test_its_shape_is_criteos() -> None:
    rows = Clicks().day(DAY, 2000).rows
    assert rows.columns == ["id", "click", "time", *clicks.NUMBERS, *clicks.CATEGORIES]
    assert (len(clicks.NUMBERS), len(clicks.CATEGORIES)) == (13, 26)
    assert 0.1 < float(rows["click"].mean() or 0) < 0.4  # type: ignore[arg-type]
    assert rows["time"].is_sorted()


def test_the_best_auc_is_that_of_the_true_probabilities() -> None:
    assert clicks.area(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1], dtype=np.int8)) == 0.75
    assert clicks.area(np.array([0.5, 0.5]), np.array([0, 1], dtype=np.int8)) == 0.5
    assert 0.75 < Clicks().day(DAY, 20_000).best_auc < 0.9


def test_the_true_probability_reads_what_the_row_says_and_nothing_else() -> None:
    (piece,) = Clicks(schedule=(), sizes=[2] * len(clicks.CATEGORIES)).pieces(DAY, 3000)
    counts = piece.rows.select(clicks.NUMBERS).to_numpy()
    scores = np.where(np.isnan(counts), 0, np.log(counts + 0.5))
    names = piece.rows.select(pl.col(clicks.CATEGORIES).fill_null("missing")).to_dummies().to_numpy()
    regressors = np.column_stack([scores, scores**2, np.isnan(counts), names])
    logits = np.log(piece.truth / (1 - piece.truth))
    weights, *_ = np.linalg.lstsq(regressors, logits, rcond=None)
    assert regressors @ weights == pytest.approx(logits, abs=1e-8)


def test_a_shift_of_one_field_moves_that_field_alone() -> None:
    plain = Clicks(schedule=()).day(DAY, 5000).rows
    moved = Clicks(schedule=[PlannedDrift(DAY, field="c10")]).day(DAY, 5000).rows
    changed = [name for name in plain.columns if not plain[name].equals(moved[name])]
    assert set(changed) <= {"c10", "click"}
    assert "c10" in changed


def test_a_change_of_concept_leaves_the_inputs_and_changes_the_clicks() -> None:
    plain = Clicks(schedule=()).day(DAY, 5000).rows
    turned = Clicks(schedule=[PlannedDrift(DAY, "concept")]).day(DAY, 5000).rows
    assert plain.drop("click").equals(turned.drop("click"))
    assert (plain["click"] != turned["click"]).mean() > 0.05  # type: ignore[operator]


def test_a_gradual_drift_grows_by_the_day() -> None:
    drift = PlannedDrift(date(2024, 1, 10), days=4, size=0.5)
    strengths = [drift.strength(date(2024, 1, day)) for day in (9, 10, 12, 14, 30)]
    assert strengths == pytest.approx([0, 0.1, 0.3, 0.5, 0.5])


def test_a_season_comes_back_on_its_weekdays_alone() -> None:
    weekend = PlannedDrift(DAY, size=0.5, weekdays=(5, 6))
    assert [weekend.strength(date(2024, 1, day)) for day in range(1, 9)] == [0, 0, 0, 0, 0, 0.5, 0.5, 0]


def test_a_drill_plants_the_drift_that_it_is_given_and_names_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    arguments = ["clicks", "2024-01-01", "2024-01-02", "--rows", "400", "--drift"]
    monkeypatch.setattr("sys.argv", [*arguments, '{"at": "2024-01-01", "field": "i3", "size": 2}'])
    clicks.main()
    delivered = pl.read_parquet(tmp_path / "inbox" / "clicks" / "2024-01-01.parquet")
    assert delivered["i3"].equals(Clicks(schedule=[PlannedDrift(DAY, field="i3", size=2)]).day(DAY, 400).rows["i3"])
    monkeypatch.setattr("sys.argv", [*arguments, '{"at": "2024-01-01", "field": "i33", "strength": 2}'])
    with pytest.raises(SystemExit):
        clicks.main()
    progress = capsys.readouterr().err
    assert "field: Input should be" in progress
    assert "strength: Unexpected keyword" in progress


@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_either_form_lands_with_the_same_digest(tmp_path: Path, form: str) -> None:
    spec = find("clicks")
    spec = spec.model_copy(update={"source": SourceSpec(path=f"in/{{window:%Y-%m-%d}}.{form}", format=form)})  # type: ignore[arg-type]
    clicks.deliver(tmp_path / "in", DAY, date(2024, 1, 2), 500, form=form)
    window = Window(parse_utc("2024-01-01"), parse_utc("2024-01-02"))
    tables, records = DeltaTables(tmp_path / "t"), JsonRecords(tmp_path / "r")
    report = landing.land(spec, [window], FileSource(spec.source, tmp_path), tables, records, "run")
    assert (report.landed, report.quarantined) == (500, 0)
    landed = tables.read("landed", [window]).select([spec.columns.time, "id", "click", *spec.columns.features])
    assert landed.num_columns == 42
    assert landed["i1"].null_count == 0
    assert landed["c3"].null_count > 0


@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_a_day_made_in_pieces_is_one_file_in_order_of_time(tmp_path: Path, form: str) -> None:
    pieces = [piece.rows for piece in Clicks().pieces(DAY, 500, most=200)]
    assert [piece.height for piece in pieces] == [200, 200, 100]
    FORMATS[form].write(tmp_path / "file", pieces)
    read = pl.read_parquet if form == "parquet" else partial(pl.read_csv, separator="\t", try_parse_dates=True)
    rows = read(tmp_path / "file")
    assert rows["id"].to_list() == [f"20240101-{n}" for n in range(500)]
    assert rows["time"].is_sorted()
    assert {at.date() for at in rows["time"]} == {DAY}


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    progress: list[tuple[date, int]] = []
    clicks.deliver(
        tmp_path, DAY, date(2024, 1, 3), 50, form="tsv", on_progress=lambda day, done: progress.append((day, done))
    )
    assert progress == [(DAY, 50), (date(2024, 1, 2), 50)]
