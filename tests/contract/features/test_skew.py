"""What the server looked up while flights were replayed, against what training computes of the same flights when they landed."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper

from include.adapters.engines.duckdb import DuckDB
from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.domain.features.aggregates import Aggregates
from include.domain.features.encoding import Encoding
from include.domain.windows import Window, parse_utc
from include.local import flights
from include.local.replay import OutcomeFeed, TrafficReplay
from include.online_store.opening import open_store
from include.online_store.protocol import OnlineStore
from include.server.lookups import Lookups
from include.server.servable_model import LoadOptions, VersionReference, load_model
from include.spec.loading import find
from include.stages.data import landing, validation
from include.stages.features import features
from include.stages.features.features import FeatureServices
from include.stages.training import dataset
from tests.contract.data.test_flights import PassAll
from tests.records import model_manifest
from tests.serving import ServerProcess, wait_for

SPEC = find("flights")
NAMES = SPEC.features.aggregates.features
PAST = Window(parse_utc("2013-03-08"), parse_utc("2013-03-10"))
LIVE = Window(parse_utc("2013-03-10"), parse_utc("2013-03-12"))  # clocks change on the 10th


class World:
    """A home with an online store, and a server that reads it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tables, self.records = DeltaTables(home / "tables"), JsonRecords(home / "records")
        self.store = open_store(str(home / "online"), SPEC.name)
        self.land(PAST)
        artifact = write_artifact(home / "artifact", dataset.fit_encoding(SPEC, self.built(PAST)), self.built(PAST))
        self.server = ServerProcess(
            home, "--slot", "stable", "--artifact", str(artifact), "--store", str(home / "online")
        )

    def land(self, span: Window) -> None:
        windows = list(span.split(SPEC.window))
        flights.deliver(self.home / "inbox" / "flights", span.start.date(), span.end.date())
        landing.land(SPEC, windows, FileSource(SPEC.source, self.home), self.tables, self.records, f"land {span}")
        validation.validate(SPEC, windows, self.tables, PassAll(), self.records, "run")
        features.build(SPEC, windows, FeatureServices(self.tables, self.records, DuckDB(), self.store), "run")

    def built(self, span: Window) -> pl.DataFrame:
        return pl.DataFrame(pl.from_arrow(self.tables.read("features", list(span.split(SPEC.window)))))

    def logged(self, count: int) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.server.logged()) >= count, f"{count} logged rows")
        return self.server.logged()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    there = World(tmp_path_factory.mktemp("home"))
    yield there
    there.server.close()


def write_artifact(folder: Path, encoding: Encoding, rows: pl.DataFrame) -> Path:
    """An artifact that takes the spec's columns and scores all rows alike; the path of its manifest."""
    widths = {
        "ids": (TensorProto.INT64, len(encoding.categorical)),
        "numbers": (TensorProto.FLOAT, len(encoding.numeric)),
    }
    inputs = [helper.make_tensor_value_info(n, kind, ["batch", width]) for n, (kind, width) in widths.items()]
    steps = [
        helper.make_node("Cast", ["ids"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Sigmoid", ["most"], ["score"]),
    ]
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])
    model = helper.make_model(
        helper.make_graph(steps, "same", inputs, [score]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.checker.check_model(model)
    folder.mkdir()
    files = {
        "model.onnx": model.SerializeToString(),
        "encoding.json": json.dumps(encoding.to_dict()).encode(),
        "examples.json": json.dumps(dataset.example_rows(SPEC, rows)).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    facts = {name: file_facts(folder / name) for name in files}
    store.write(
        folder / "manifest.json", model_manifest(model=SPEC.name, columns=dataset.columns_of(SPEC), files=facts)
    )
    return folder / "manifest.json"


def test_the_server_used_what_training_recomputes(world: World) -> None:
    first, last = LIVE.start.date(), LIVE.end.date()
    requests, outcomes = flights.requests(first, last), flights.outcomes(first, last)
    stream = OutcomeFeed(world.store, outcomes, SPEC.features.aggregates, SPEC.columns.time)
    with TrafficReplay(world.server.url, requests, 2000, "flight_id", stream) as replay:
        wait_for(lambda: not replay.running, "the replay to end")
    assert replay.counts.failures == 0
    used = {line["key"]: [line["features"][name] for name in NAMES] for line in world.logged(len(requests))}
    world.land(LIVE)
    trained = world.built(LIVE)
    assert len(used) == trained.height == len(requests)
    rows = {row["flight_id"]: [row[name] for name in NAMES] for row in trained.to_dicts()}
    gap = np.nanmax([np.abs(np.subtract(_numbers(used[key]), _numbers(rows[key]))) for key in rows])
    missing = sum((u is None) != (t is None) for key in rows for u, t in zip(used[key], rows[key], strict=True))
    assert (gap, missing) == (0, 0)
    assert np.isfinite(_numbers(used[requests[-1]["flight_id"]])).mean() > 0.5, "much was known at the end"


def test_a_landing_replaces_what_was_streamed_and_the_server_follows(world: World) -> None:
    day = date(2013, 3, 12)
    row = next(r for r in flights.requests(day, date(2013, 3, 13)) if r["origin"] == "JFK" and r["tailnum"])
    newest = world.store.read(None).landed
    until = max(w.known_until for w in newest or ())
    wait_for(lambda: (world.server.status()["store"] or {})["known_until"] == until, "the landed windows")
    before = len(world.server.logged())
    world.server.predict(row)
    world.land(Window(parse_utc("2013-03-12"), parse_utc("2013-03-13")))
    trained = next(
        r
        for r in world.built(Window(parse_utc("2013-03-12"), parse_utc("2013-03-13"))).to_dicts()
        if r["flight_id"] == row["flight_id"]
    )
    used = world.logged(before + 1)[-1]["features"]
    served, built = (_numbers([row[name] for name in NAMES]) for row in (used, trained))
    assert np.array_equal(served, built, equal_nan=True)


def test_an_entity_that_nobody_knows_is_answered_and_counted(world: World) -> None:
    row = {**flights.requests(date(2013, 3, 11), date(2013, 3, 12))[0], "tailnum": "NOBODY"}
    before = world.server.metric('perennial_store_misses{slot="stable",model="flights",group="tailnum"}')
    world.server.predict(row)
    assert world.server.metric('perennial_store_misses{slot="stable",model="flights",group="tailnum"}') == before + 1
    assert 0 <= world.server.metric("perennial_store_age_seconds") < 3600


def test_a_version_that_takes_over_tells_the_same_past_without_reading_it_again(world: World) -> None:
    version = VersionReference("2", str(world.home / "artifact" / "manifest.json"), None)
    body = json.dumps(flights.requests(date(2013, 3, 11), date(2013, 3, 12))[0]).encode()
    opened = []

    def opening() -> OnlineStore:
        opened.append(open_store(str(world.home / "online"), SPEC.name))
        return opened[-1]

    first = load_model(version, LoadOptions(), opening)
    second = load_model(version, LoadOptions(), opening, first.rows.lookups)
    assert len(opened) == 1
    other = load_model(version, LoadOptions(), opening, Lookups(opened[0], Aggregates(), ()))
    assert len(opened) == 2
    expected, *others = ([model.rows.read(body)[0].numbers] for model in (first, second, other))
    assert others == [expected, expected]
    assert np.isfinite(np.frombuffer(expected[0], np.float32)[-len(NAMES) :]).mean() > 0.5


def test_aggregates_are_never_taken_from_the_caller(world: World) -> None:
    row = {**flights.requests(date(2013, 3, 11), date(2013, 3, 12))[0], NAMES[0]: 1.0}
    assert world.server.http.post("/predict", json=row).status_code == 400


def test_a_damaged_store_is_told_and_does_not_stop_the_server(world: World, tmp_path: Path) -> None:
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "flights.db").write_bytes(b"no database at all" * 100)
    artifact = world.home / "artifact" / "manifest.json"
    server = ServerProcess(
        tmp_path, "--slot", "stable", "--artifact", str(artifact), "--store", str(tmp_path / "online")
    )
    try:
        server.predict(flights.requests(date(2013, 3, 11), date(2013, 3, 12))[0])
        assert "not a database" in server.status()["store"]["fault"]
    finally:
        server.close()


def _numbers(values: list[float | None]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As the model takes them, which is how the log tells them."""
    return np.array([np.nan if v is None else v for v in values], np.float32)
