"""Every route of the pages, asked by everybody, with every way to leave the folder of a model."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from plugins import pages

SECRET = "fernet-key-of-the-stack"
#: What somebody may send as a model; none of it is one. (A client folds plain dots, `%2e` reaches the server as one.)
NO_MODELS = ("%2e", "%2e%2e", "..%2f..", "nobody", "Flights", "flights%00", "*")
#: Below a model's folder: what its reports and cards do not consist of.
NO_PAGES = (
    "reports/secrets.json",
    "reports/../secrets.json",
    "reports/%2e%2e/%2e%2e/secrets.json",
    "reports/..%2f..%2fsecrets.json",
    "reports/airflow/passwords.json",
    "reports/%2e%2e/%2e%2e/airflow/passwords.json",
    "reports/drift/state.json",
    "runs/../evaluation/secrets.json",
    "runs/%2e%2e/evaluation/secrets.json",
    "runs/r1/evaluation/evaluation.json",
)
ROLES = ("VIEWER", "USER", "OP", "ADMIN")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home as a stack leaves it, with secrets beside the reports."""
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    for path in (
        "secrets.json",
        "airflow/passwords.json",
        "reports/flights/drift/state.json",
        "runs/flights/r1/evaluation/evaluation.json",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps({"key": SECRET}))
    (tmp_path / "reports" / "flights" / "watch.html").write_text("<p>the watch</p>")
    return tmp_path


@pytest.fixture
def nobody(home: Path) -> Iterator[TestClient]:
    """A client without a token, before the real authorization of Airflow."""
    create_auth_manager().init()
    yield TestClient(pages.app, follow_redirects=False, base_url="http://localhost:8080")
    pages.app.dependency_overrides = {}


@pytest.fixture(params=ROLES)
def somebody(nobody: TestClient, request: pytest.FixtureRequest) -> TestClient:
    user = SimpleAuthManagerUser(username="somebody", role=request.param)
    pages.app.dependency_overrides = {get_user: lambda: user}
    return nobody


def urls() -> Iterator[str]:
    for model in NO_MODELS:
        yield from (
            f"/{model}/",
            f"/{model}/rollouts/r/",
            f"/{model}/reports/secrets.json",
            f"/{model}/reports/airflow/passwords.json",
        )
        yield from (f"/{model}/runs/r1/evaluation/card.html", f"/of/{model}.train", f"/of/{model}.train/r1")
    yield from (f"/flights/{page}" for page in NO_PAGES)


def test_without_a_token_nothing_is_answered(nobody: TestClient) -> None:
    for url in (*urls(), "/", "/flights/", "/flights/reports/watch.html", "/of/flights.train"):
        answer = nobody.get(url)
        assert answer.status_code in (401, 404), url
        assert SECRET not in answer.text


def test_no_role_reads_what_is_no_page_of_a_model(somebody: TestClient) -> None:
    for url in urls():
        answer = somebody.get(url)
        assert answer.status_code == 404, url
        assert SECRET not in answer.text


def test_every_role_reads_the_pages_of_a_model(somebody: TestClient) -> None:
    for url in ("/", "/flights/", "/flights/reports/watch.html"):
        assert somebody.get(url).status_code == 200, url
    assert somebody.get("/of/flights.train").headers["location"] == "/perennial/flights/"


def test_a_viewer_may_not_steer(nobody: TestClient) -> None:
    pages.app.dependency_overrides = {get_user: lambda: SimpleAuthManagerUser(username="v", role="VIEWER")}
    answer = nobody.post("/flights/steer", data={"word": "pause"}, headers={"Origin": "http://localhost:8080"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:8081", "https://localhost:8080", "http://localhost:8080.evil.test"]
)
def test_no_other_site_steers(nobody: TestClient, origin: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost:8080")
    pages.app.dependency_overrides = {get_user: lambda: SimpleAuthManagerUser(username="a", role="ADMIN")}
    headers = {"Origin": origin} if origin else {}
    assert nobody.post("/flights/steer", data={"word": "pause"}, headers=headers).status_code == 403
    for allowed in ({"Origin": "http://localhost:8080"}, {"Authorization": "Bearer of-the-user"}):
        assert nobody.post("/flights/steer", data={"word": "pause"}, headers=allowed).status_code == 409, (
            "no rollout runs"
        )
