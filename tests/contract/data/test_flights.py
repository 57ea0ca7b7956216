"""The recorded flights: what is in them, and the whole way from their files to features."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from include.adapters.engines.duckdb import DuckDB
from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.domain.features.aggregates import AggregateGroup, Aggregates, entity_name
from include.domain.verdict import Check, Outcome, Verdict
from include.domain.windows import Window, parse_utc
from include.local import flights
from include.online_store.opening import open_store
from include.ports.validation import Profile
from include.spec.loading import find
from include.spec.model_spec import ModelSpec
from include.stages.data import landing, validation
from include.stages.features import aggregation, features
from include.stages.features.features import FeatureServices

HOUR = timedelta(hours=1)
GROUPS = (
    AggregateGroup(by=("origin",), over=(HOUR, 6 * HOUR), mean=("late", "arr_delay"), rows=True),
    AggregateGroup(by=("carrier", "origin"), over=(3 * HOUR,), mean=("late",)),
    AggregateGroup(by=("tailnum",), over=(48 * HOUR,), mean=("arr_delay",), last=("arr_delay",)),
)
DAYS = list(
    Window(parse_utc("2013-03-08"), parse_utc("2013-03-12")).split(find("flights").window)
)  # clocks changed on the 10th


class PassAll:
    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        return {p.window: Verdict(p.window, (Check("rows", Outcome.PASS, ""),)) for p in profiles}, ""


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    spec = find("flights")
    return spec.model_copy(
        update={"features": spec.features.model_copy(update={"aggregates": Aggregates(2 * HOUR, GROUPS)})}
    )


@pytest.fixture(scope="module")
def tables(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> DeltaTables:
    """Four days landed and built."""
    home = tmp_path_factory.mktemp("home")
    flights.deliver(home / "inbox" / "flights", date(2013, 3, 8), date(2013, 3, 12))
    held, records = DeltaTables(home / "tables"), JsonRecords(home / "records")
    landing.land(spec, DAYS, FileSource(spec.source, home), held, records, "run")
    validation.validate(spec, DAYS, held, PassAll(), records, "run")
    services = FeatureServices(held, records, DuckDB(), open_store(str(home), spec.name))
    features.build(spec, DAYS, services, "run")
    return held


def frame(tables: DeltaTables, table: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(tables.read(table, DAYS))).sort("departure", "flight_id")


def test_every_delivered_flight_lands_once_in_its_utc_day(tables: DeltaTables) -> None:
    landed = frame(tables, "landed")
    assert landed["flight_id"].n_unique() == landed.height == 3702
    assert (landed["departure"].dt.date().cast(pl.String) == landed["window"]).all()


def test_times_are_moments_across_the_clock_change(tables: DeltaTables) -> None:
    landed = frame(tables, "landed")
    local = landed["departure"].dt.convert_time_zone("America/New_York")
    assert (local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute() == landed["dep_minute"]).all()


def test_the_label_is_whether_it_came_more_than_15_minutes_late(tables: DeltaTables) -> None:
    landed = frame(tables, "landed")
    labelled = landed.drop_nulls("late")
    assert (labelled["late"] == (labelled["arr_delay"] > 15).cast(pl.Int8)).all()
    assert landed.filter(pl.col("late").is_null())["arr_delay"].null_count() == landed["late"].null_count() > 0


def test_nothing_that_happened_later_is_a_feature_or_asked_with(tables: DeltaTables, spec: ModelSpec) -> None:
    later = {"arr_delay", "arrived"}
    assert not later & set(frame(tables, "features").columns)
    row = flights.requests(date(2013, 3, 8), date(2013, 3, 9))[0]
    assert set(row) == {spec.columns.time, *spec.columns.keys, *spec.columns.features}


def test_the_weather_was_observed_two_hours_before_departure(tables: DeltaTables) -> None:
    observed = pl.read_csv(flights.data_folder() / "weather.csv", null_values="NA", infer_schema_length=None)
    by_hour = {(w["origin"], w["time_hour"]): w["temp"] for w in observed.to_dicts()}
    rows = frame(tables, "landed").sample(200, seed=3).to_dicts()
    hours = [(r["origin"], f"{r['departure'] - 2 * HOUR:%Y-%m-%dT%H:00:00Z}") for r in rows]
    assert all(r["temp"] == by_hour[hour] for r, hour in zip(rows, hours, strict=True) if hour in by_hour)
    assert sum(hour in by_hour for hour in hours) > 190


def test_delivering_again_leaves_the_files_alone(tmp_path: Path) -> None:
    assert flights.deliver(tmp_path, date(2013, 3, 8), date(2013, 3, 9)) == 978
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert flights.deliver(tmp_path, date(2013, 3, 8), date(2013, 3, 9)) == 0
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_aggregates_are_what_one_counts_by_hand_from_the_outcomes_known_then(tables: DeltaTables) -> None:
    landed, built = frame(tables, "landed"), frame(tables, "features")
    outcomes = landed.drop_nulls("arrived").to_dicts()
    for row in built.sample(60, seed=1).to_dicts():
        cut = (row["departure"] - 2 * HOUR).replace(minute=0, second=0)
        for group in GROUPS:
            who = entity_name(row, group.by)
            for span in group.over:
                visible = [
                    o
                    for o in outcomes
                    if who is not None
                    and entity_name(o, group.by) == who
                    and cut - span <= o["arrived"].replace(minute=0, second=0) < cut
                ]
                for name in group.mean:
                    value = row[f"{name}_mean_{group.name}_{_name(span)}"]
                    expected = np.mean([o[name] for o in visible]) if visible else None
                    assert value == (pytest.approx(expected) if visible else None), (row["flight_id"], group.name, span)


def test_no_event_changes_by_what_came_after_it(tables: DeltaTables, spec: ModelSpec) -> None:
    """Features of the first two days, from a history that ends there, and from one that knows the days after."""
    rows = frame(tables, "landed").filter(pl.col("window") < "2013-03-10")
    full = aggregation.read_histories(spec, tables, DAYS[0], DAYS[-1])
    cut = aggregation.read_histories(spec, tables, DAYS[0], DAYS[1])
    with_all, with_past = (aggregation.with_aggregates(spec, rows, histories) for histories in (full, cut))
    assert with_all.equals(with_past, null_equal=True)


def test_one_row_by_itself_gives_what_the_table_holds(tables: DeltaTables, spec: ModelSpec) -> None:
    """What a server does with a row that asks for a prediction."""
    built = frame(tables, "features")
    histories = aggregation.read_histories(spec, tables, DAYS[0], DAYS[-1])
    for row in built.sample(40, seed=2).to_dicts():
        before = spec.features.aggregates.cutoff_hours(
            np.array([int(row["departure"].replace(tzinfo=UTC).timestamp())])
        )
        for group in GROUPS:
            features = histories[group.name].as_of([entity_name(row, group.by)], before)
            for name in group.features:
                table = np.nan if row[name] is None else row[name]
                assert np.array_equal(features[name], [table], equal_nan=True)


def _name(span: timedelta) -> str:
    return f"{span // timedelta(days=1)}d" if not span % timedelta(days=1) else f"{span // HOUR}h"


def test_the_departures_of_a_window_are_asked_in_order() -> None:
    rows = flights.requests(date(2013, 3, 8), date(2013, 3, 10))
    times = [datetime.fromisoformat(r["departure"]) for r in rows]
    assert times == sorted(times)
