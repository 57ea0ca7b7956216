"""The DAGs as Airflow sees them: parsed in a fresh interpreter, from a tree of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.settings import ROOT

HEAVY = ["torch", "mlflow", "great_expectations", "evidently", "pandas", "lightgbm", "onnxruntime", "scipy", "pyarrow"]
REPORT = """
import json, os, sys
if "WITHOUT_PYSPARK" in os.environ:
    import importlib.metadata as metadata
    installed = metadata.version
    def version(name):
        if name == "pyspark":
            raise metadata.PackageNotFoundError(name)
        return installed(name)
    metadata.version, sys.modules["pyspark"] = version, None
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], collect_dags=True)
def task(t):
    return {"id": t.task_id, "down": sorted(t.downstream_task_ids), "pool": t.pool, "retries": t.retries, "owner": t.owner,
            "timeout": t.execution_timeout is not None, "policy": t.retry_policy is not None,
            "sensor": t._is_sensor, "links": [link.name for link in t.operator_extra_links], "teardown": t.is_teardown}
print(json.dumps({
    "errors": {k.rsplit("/", 1)[-1]: v for k, v in bag.import_errors.items()},
    "heavy": [m for m in json.loads(sys.argv[2]) if m in sys.modules],
    "dags": {d.dag_id: {"tasks": [task(t) for t in d.topological_sort()], "doc": d.doc_md, "tags": sorted(d.tags),
                        "catchup": d.catchup, "ends": d.dagrun_timeout is not None} for d in bag.dags.values()}}))
"""
GRAPHS = {
    "data": ["land", "validate", "features", "compact"],
    "train": ["validate", "features", "train", "evaluate", "gate", "register", "approve", "release"],
    "rollout": ["begin", "shadow", "canary_10", "canary_100", "promote"],
    "watch": ["sense", "decide", "request"],
    "steer": ["steer"],
}


def parse(root: Path, home: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(root),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
    }
    command = [sys.executable, "-c", REPORT, str(root / "dags"), json.dumps(HEAVY)]
    ended = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what Airflow reads, so that a test may spoil it."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("dags", "plugins", "include"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    flights = (root / "include/models/flights.yaml").read_text()
    searching = flights.replace("name: flights", "name: searching").replace(
        "training:\n", "training:\n  search: {rounds: 2}\n"
    )
    (root / "include/models/searching.yaml").write_text(searching)
    yield root


@pytest.fixture(scope="module")
def bag(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse(tree, tmp_path_factory.mktemp("airflow"))


def test_every_spec_gets_its_dags(bag: dict[str, Any]) -> None:
    assert not bag["errors"]
    assert set(bag["dags"]) == {
        f"{model}.{dag_kind}" for model in ("flights", "clicks", "searching") for dag_kind in GRAPHS
    }


def test_parsing_imports_nothing_heavy(bag: dict[str, Any]) -> None:
    assert bag["heavy"] == []


@pytest.mark.parametrize("dag_kind", GRAPHS)
def test_the_graph_reads_in_the_order_of_the_loop(bag: dict[str, Any], dag_kind: str) -> None:
    tasks = [t["id"] for t in bag["dags"][f"flights.{dag_kind}"]["tasks"]]
    assert [t for t in tasks if t in GRAPHS[dag_kind]] == GRAPHS[dag_kind]


def test_a_search_stands_in_the_graph_only_where_a_spec_asks_for_one(bag: dict[str, Any]) -> None:
    downstream = {t["id"]: t["down"] for t in bag["dags"]["searching.train"]["tasks"]}
    assert "suggest_1" in downstream["features"]
    assert downstream["suggest_1"] == ["attempt_1"]
    assert {"suggest_2", "train"} <= set(downstream["attempt_1"])
    assert downstream["attempt_2"] == ["train"]
    assert "evaluate" in downstream["train"]
    assert not any(t["id"].startswith(("suggest", "attempt")) for t in bag["dags"]["flights.train"]["tasks"])


def test_every_dag_says_what_it_does_and_whose_it_is(bag: dict[str, Any]) -> None:
    for name, dag in bag["dags"].items():
        assert "Will this" in dag["doc"], name
        assert {"perennial", name.split(".")[0]} <= set(dag["tags"])
        assert not dag["catchup"]


def test_every_task_has_an_owner_a_pool_a_timeout_and_retries_by_cause(bag: dict[str, Any]) -> None:
    for dag in bag["dags"].values():
        for task in dag["tasks"]:
            assert task["owner"] == "perennial"
            assert task["pool"] in {"data", "training", "serving"}, task
            assert task["policy"], task
            assert task["timeout"] or task["id"] in {"approve"}, task


def test_traffic_is_left_to_nobody_however_the_run_of_a_rollout_ends(bag: dict[str, Any]) -> None:
    dag = bag["dags"]["flights.rollout"]
    assert [task["id"] for task in dag["tasks"] if task["teardown"]] == ["roll_back"], (
        "a person may end the run by hand"
    )
    assert dag["tasks"][-1]["id"] == "roll_back"
    assert not dag["ends"], "a run that timed out would skip its teardown"


def test_the_watch_waits_as_a_deferrable_sensor_and_its_report_links_to_its_pages(bag: dict[str, Any]) -> None:
    tasks = {task["id"]: task for task in bag["dags"]["flights.watch"]["tasks"]}
    assert [name for name, task in tasks.items() if task["sensor"]] == ["sense"]
    assert tasks["report"]["links"] == ["Watch page", "Evidently's report"]


def test_a_wrong_spec_is_an_import_error_with_every_error_and_the_other_models_stay(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    good = (root / "include/models/flights.yaml").read_text()
    (root / "include/models/broken.yaml").write_text(good.replace("label:", "lable:") + "\ncolour: red\n")
    bag = parse(root, tmp_path / "airflow")
    assert set(bag["errors"]) == {"model_specs.py"}
    error = bag["errors"]["model_specs.py"]
    assert "broken.yaml" in error
    assert "columns.label: Field required" in error
    assert "colour: unknown key" in error
    assert {"flights.train", "clicks.train"} <= set(bag["dags"])
    assert not any(name.startswith("broken") for name in bag["dags"])


def test_the_image_of_the_dags_needs_no_pyspark(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    flights = (root / "include/models/flights.yaml").read_text()
    on_spark = flights.replace("name: flights", "name: on_spark").replace("features:\n", "features:\n  engine: spark\n")
    (root / "include/models/on_spark.yaml").write_text(on_spark)
    monkeypatch.setenv("PERENNIAL_LAUNCHER", "kubernetes")
    monkeypatch.setenv("WITHOUT_PYSPARK", "1")
    bag = parse(root, tmp_path / "airflow")
    assert not bag["errors"]
    assert "features" in {task["id"] for task in bag["dags"]["on_spark.data"]["tasks"]}
