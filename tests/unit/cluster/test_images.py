"""The images hold what their programs import, pinned, and nothing that a restricted pod refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import ROOT

IMAGES = ("airflow", "trainer", "server")


def dockerfile(name: str) -> str:
    return (ROOT / "docker" / f"{name}.Dockerfile").read_text()


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_the_pods_user_and_says_where_it_comes_from(name: str) -> None:
    text = dockerfile(name)
    assert "USER 10001:10001" in text
    assert "HEALTHCHECK" in text
    assert 'org.opencontainers.image.revision="${COMMIT}"' in text
    assert text.count("FROM ${BASE}") == 2, "the base can be pinned by its digest"


@pytest.mark.parametrize("name", ["trainer", "server"])
def test_what_an_image_installs_is_pinned_by_the_lock(name: str) -> None:
    required = set(re.findall(r"^([\w.-]+)", (ROOT / "docker" / f"{name}.requirements.txt").read_text(), re.MULTILINE))
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {package.lower() for package in required} <= {package.lower() for package in locked}


@pytest.mark.parametrize(
    ("name", "module"), [("trainer", "include.entrypoints.training_pod"), ("server", "include.server.__main__")]
)
def test_a_program_imports_nothing_that_its_image_lacks(name: str, module: str) -> None:
    """Airflow and what only its tasks use would fail in the pod."""
    code = f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    required = (ROOT / "docker" / f"{name}.requirements.txt").read_text()
    for package, line in {
        "airflow": "apache-airflow",
        "deltalake": "deltalake",
        "kubernetes": "kubernetes",
        "great_expectations": "great-expectations",
        "duckdb": "duckdb",
        "ibis": "ibis-framework",
        "pyarrow": "pyarrow",
        "yaml": "PyYAML",
        "pydantic": "pydantic",
        "httpx": "httpx",
        "scipy": "scipy",
        "polars": "polars",
        "pandas": "pandas",
        "annotated_types": "annotated-types",
    }.items():
        assert package not in ended.stdout.split() or line in required, f"{module} imports {package}"


@pytest.mark.parametrize("name", ["trainer", "server"])
def test_an_image_brings_the_time_zones_that_a_spec_may_name(name: str) -> None:
    """Python reads them from a package where the base has no files of them, as a slim one may."""
    assert "tzdata" in (ROOT / "docker" / f"{name}.requirements.txt").read_text().split()


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    report = subprocess.run(
        [hadolint, str(ROOT / "docker" / f"{name}.Dockerfile")], capture_output=True, text=True, check=False
    )
    assert not report.stdout
