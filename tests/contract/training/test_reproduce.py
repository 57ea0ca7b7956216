"""A training's record on a real MLflow server: sent late where the server was away, and enough to rebuild the run from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from mlflow import MlflowClient

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import UserMistake
from include.domain.windows import Window, window_label
from include.local.reproduce import reproduce
from include.ports.tables import FEATURES
from include.settings import Settings
from include.spec.model_spec import ModelSpec
from include.stages.training import dataset as assembly
from include.stages.training import time_travel, training
from include.stages.training.training import TrainingRun
from include.wiring import Parts
from tests import tracking_server
from tests.unit.toy import toy

START, DAYS, A_DAY = datetime(2026, 1, 1, tzinfo=UTC), 12, 200
MODEL = {"embedding": 4, "cross_rank": 4, "hidden": [8]}


@dataclass(frozen=True)
class World:
    """A model trained as logistic regression while MLflow was away, then as DCN while it was there."""

    spec: ModelSpec
    parts: Parts
    client: MlflowClient
    trained: dict[str, Reference]

    def run(self, family: str) -> Any:
        return self.client.search_runs([self.experiment], f"tags.family = '{family}'")[0]

    @property
    def experiment(self) -> str:
        experiment = self.client.get_experiment_by_name("toy")
        assert experiment is not None
        return experiment.experiment_id


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home, port = tmp_path_factory.mktemp("home"), tracking_server.free_port()
    spec = toy(model=MODEL, training={"validate_windows": 2, "test_windows": 2, "epochs": 1, "batch_size": 128})
    parts = Parts(Settings(home=home, mlflow_port=port))
    parts.tables(spec).replace(FEATURES, {window(day): rows(day) for day in range(DAYS)}, "landed")
    folder = parts.run_folder(spec, "first")
    dataset = assembly.assemble(spec, window(DAYS + 1).end, parts.tables(spec), "first", folder / "dataset")

    def train(family: Any) -> Reference:
        run = TrainingRun(dataset, folder, tracking_url=f"http://127.0.0.1:{port}")
        return training.train(spec, run, parts.launcher(), family=family)

    away = train("logistic")
    with tracking_server.running(home / "mlflow", port) as url:
        yield World(spec, parts, MlflowClient(url), {"logistic": away, "dcn": train("dcn")})


def window(day: int) -> Window:
    return Window(START + timedelta(days=day), START + timedelta(days=day + 1))


def rows(day: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng([seed, day])
    x, c = random.normal(size=A_DAY), random.integers(0, 6, A_DAY)
    y = (random.random(A_DAY) < 1 / (1 + np.exp(1 - x - 0.3 * c))).astype(np.int8)
    at = [window(day).start + timedelta(seconds=int(s)) for s in np.sort(random.integers(0, 86_400, A_DAY))]
    return pa.table(
        {
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "key": [f"{day}-{n}" for n in range(A_DAY)],
            "y": y,
            "x": x,
            "c": c.astype(str),
            "window": [window_label(window(day).start)] * A_DAY,
        }
    )


def test_a_run_whose_server_was_away_is_sent_whole_by_the_next_one(world: World) -> None:
    run = world.run("logistic")
    manifest = store.read(world.trained["logistic"], ModelManifest)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.batch_size"] == "128"
    assert run.data.metrics["test_auc"] == pytest.approx(manifest.metrics.test.auc)
    assert {"record/dataset.json", "record/job.json"} == {
        f.path for f in world.client.list_artifacts(run.info.run_id, "record")
    }


def test_live_metrics_of_every_epoch_are_there(world: World) -> None:
    run = world.run("dcn").info.run_id
    for name in ("loss", "samples_per_second", "validate_auc", "validate_logloss", "validate_ece"):
        assert {m.step for m in world.client.get_metric_history(run, name)} == {13}, name


def test_inputs_name_the_windows_and_the_tables_version(world: World) -> None:
    inputs = {i.tags[0].value: i.dataset for i in world.run("dcn").inputs.dataset_inputs}
    assert inputs["training"].name == "toy.features@0 train"
    assert json.loads(inputs["testing"].profile) == {
        "windows": "2026-01-11 to 2026-01-12",
        "count": 2,
        "rows": 2 * A_DAY,
    }


def test_weights_and_manifest_lie_with_the_run(world: World) -> None:
    run = world.run("dcn").info.run_id
    assert {"model/manifest.json", "model/model.safetensors"} == {
        f.path for f in world.client.list_artifacts(run, "model")
    }


def test_a_run_is_rebuilt_to_the_last_bit_from_its_record_although_its_table_has_moved_on(
    world: World, tmp_path: Path
) -> None:
    world.parts.tables(world.spec).replace(FEATURES, {window(3): rows(3, seed=9)}, "corrected")
    comparisons = reproduce(world.run("dcn").info.run_id, world.parts, tmp_path / "again", print)
    assert {"dataset", "model.safetensors", "model.onnx", "test logloss"} < {row.name for row in comparisons}
    assert [row.name for row in comparisons if not row.same] == []


def test_a_run_gives_its_very_rows_by_one_call_although_a_window_was_written_again(world: World) -> None:
    tables = world.parts.tables(world.spec)
    tables.replace(FEATURES, {window(4): rows(4, seed=9), window(10): rows(10, seed=9)}, "corrected")
    rows_by_split = time_travel.rows_of_run(world.run("dcn").info.run_id, world.parts.registry(), tables)
    for split, days in (("train", range(8)), ("validate", (8, 9)), ("test", (10, 11))):
        first = pl.DataFrame(pl.from_arrow(pa.concat_tables([rows(day) for day in days]))).sort("at", "key")
        assert rows_by_split[split].select(first.columns).equals(first), split


def test_a_run_without_a_whole_record_is_named(world: World, tmp_path: Path) -> None:
    run = world.client.create_run(world.experiment).info.run_id
    with pytest.raises(UserMistake, match=rf"run {run} has no record/dataset.json: it did not finish"):
        reproduce(run, world.parts, tmp_path / "again", print)
