"""On a cluster the task `features` is a SparkApplication that runs the project's own program over the run's windows."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.sdk import DAG

from include.adapters.engines import spark_application
from include.adapters.engines.spark import Spark
from include.adapters.tables.delta import DeltaTables
from include.domain.errors import UserMistake
from include.entrypoints import spark_features
from include.settings import ROOT, Settings
from include.spec.loading import find
from include.wiring import Parts
from plugins import spark_operator
from tests.kubernetes_api import FakeKubernetes, serving
from tests.kustomize import render
from tests.unit.cluster.test_manifests import of_kind

SPEC = find("flights")
INSTALLED, RIGHTS = (render(ROOT / "include/manifests" / name) for name in ("base", "spark"))
SETTINGS = Settings(
    home=Path("/home"), storage="s3://bucket/p", online="redis://cache:6379/0", namespace="ml", spark_image="spark:1"
)


def test_the_application_runs_the_features_job_with_the_clusters_own_places() -> None:
    application = Parts(SETTINGS).spark_application(SPEC, spark_operator.ARGUMENTS).manifest["spec"]
    assert application["image"] == "spark:1"
    assert f"pyspark=={application['sparkVersion']}" in (ROOT / "requirements.lock").read_text().splitlines()
    program = Path(application["mainApplicationFile"].removeprefix(f"local://{spark_application.IMAGE_ROOT}/"))
    assert (Path(__file__).parents[2] / program).is_file()
    assert application["arguments"] == ["features", "flights", *spark_operator.ARGUMENTS]
    for part in ("driver", "executor"):
        variables = {v["name"]: v["value"] for v in application[part]["env"]}
        assert variables == {
            "PERENNIAL_HOME": "/home",
            "PERENNIAL_SPARK": "submitted",
            "PERENNIAL_STORAGE": "s3://bucket/p",
            "PERENNIAL_ONLINE": "redis://cache:6379/0",
        }
        assert application[part]["envFrom"] == [{"secretRef": {"name": "perennial-storage", "optional": True}}]
        assert application[part]["volumeMounts"] == [{"name": "home", "mountPath": "/home"}], (
            "the windows' records lie there"
        )
        assert application[part]["securityContext"]["allowPrivilegeEscalation"] is False
    assert application["volumes"][0]["persistentVolumeClaim"]["claimName"] in of_kind(
        INSTALLED, "PersistentVolumeClaim"
    )
    assert application["driver"]["serviceAccount"] in of_kind(RIGHTS, "ServiceAccount")


def test_airflow_may_submit_and_remove_an_application_and_no_more(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    fake.changed = lambda _, thing: thing.setdefault("status", {"applicationState": {"state": "RUNNING"}})
    with serving(fake, tmp_path / "kubeconfig"):
        operator = spark_operator.features(SPEC, Parts(replace(SETTINGS, kubeconfig=str(tmp_path / "kubeconfig"))))
        operator.launcher.start_spark_job()
        operator.launcher.delete_spark_job()
    rules = of_kind(RIGHTS, "Role")["perennial-spark-launcher"]["rules"]
    assert fake.calls == {
        (rule["apiGroups"][0], rule["resources"][0], verb) for rule in rules for verb in rule["verbs"]
    }


def test_the_operator_submits_it_and_fills_in_the_runs_windows() -> None:
    with DAG("flights.data"):
        task = spark_operator.features(SPEC, Parts(SETTINGS))
    assert task.namespace == "ml"
    assert task.trigger_rule == "all_done"
    task.render_template_fields(
        {
            "params": {"start": "2013-01-01", "end": "2013-02-01"},
            "run_id": "manual__2026-01-01T00:00:00+00:00",
        }
    )
    arguments = task.template_spec["spark"]["spec"]["arguments"]
    assert arguments == ["features", "flights", "2013-01-01", "2013-02-01", "manual__2026-01-01T00-00-00-00-00"]


def test_the_program_refuses_windows_that_did_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    with pytest.raises(UserMistake, match="no features for 2013-01-01: not validated"):
        spark_features.build("flights", "2013-01-01", "2013-01-02", "run")


def test_a_task_without_pyspark_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in {"pyspark", *(name for name in sys.modules if name.startswith("pyspark."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserMistake, match=r"requirements-spark\.txt"):
        Spark("local[1]").collect(DeltaTables(tmp_path), "landed", [], lambda rows: rows)
