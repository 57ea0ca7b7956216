"""The plugin's pages of evidence, where this machine has the files and where only the bucket has them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from include.adapters.tables.object_storage import ObjectStorage
from plugins import pages
from tests.bucket import bucket

CARD = "/flights/runs/r1/evaluation/card.html"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TestClient]:
    """The pages as somebody sees them who may read the model."""
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    create_auth_manager().init()
    pages.app.dependency_overrides = {get_user: lambda: SimpleAuthManagerUser(username="v", role="VIEWER")}
    yield TestClient(pages.app, follow_redirects=False)
    pages.app.dependency_overrides = {}


def write_card(home: Path) -> Path:
    card = home / "runs" / "flights" / "r1" / "evaluation" / "card.html"
    card.parent.mkdir(parents=True)
    card.write_text("<p>evidence</p>")
    return card


def test_a_card_on_this_machine_is_shown_as_it_is(client: TestClient, tmp_path: Path) -> None:
    assert client.get(CARD).status_code == 404
    write_card(tmp_path / "home")
    assert client.get(CARD).text == "<p>evidence</p>"


def test_a_card_that_only_the_bucket_has_is_shown_by_a_link(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3").mkdir()
    with bucket(tmp_path / "s3") as uri:
        monkeypatch.setenv("PERENNIAL_STORAGE", uri)
        card = write_card(tmp_path / "elsewhere")
        ObjectStorage(tmp_path / "elsewhere", uri).push(card.parent)
        assert client.get("/of/flights.train/r1").headers["location"].endswith(CARD)
        answer = client.get(CARD)
        assert answer.status_code == 307
        assert httpx.get(answer.headers["location"], trust_env=False).text == "<p>evidence</p>"
        assert client.get(CARD.replace("card", "other")).status_code == 404
        assert client.get("/flights/runs/r1/evaluation/model.onnx").status_code == 404, "no page"
    assert client.get(CARD).status_code == 503, "the storage is away"
