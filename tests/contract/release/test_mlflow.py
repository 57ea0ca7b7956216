"""The registry on a real MLflow server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from include.adapters.registry.mlflow import MLflow
from include.artifacts.store import Reference
from include.domain.errors import Conflict, Unavailable, UserMistake
from include.ports.registry import Registry
from tests import tracking_server
from tests.fakes import FakeRegistry

names = (f"model{n}" for n in count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with an empty store."""
    with tracking_server.running(tmp_path_factory.mktemp("mlflow"), tracking_server.free_port()) as url:
        yield url


@pytest.fixture
def registry(server: str, tmp_path: Path) -> MLflow:
    return MLflow(server, tmp_path / "locks")


@pytest.fixture(params=["the fake", "MLflow"])
def either(request: pytest.FixtureRequest) -> Registry:
    """What holds for MLflow holds for the fake that the stages' tests rely on."""
    if request.param == "the fake":
        return FakeRegistry()
    mlflow: MLflow = request.getfixturevalue("registry")
    return mlflow


@pytest.fixture
def model() -> str:
    return next(names)


def artifact(name: str) -> Reference:
    return Reference(f"/home/runs/{name}/manifest.json", name)


def test_a_version_carries_its_artifact_and_its_tags(either: Registry, model: str) -> None:
    registered = either.register(model, artifact("a"), {"verdict": "pass"}, None)
    version = either.version(model, registered.number)
    assert version.artifact == artifact("a")
    assert version.tags["verdict"] == "pass"


def test_the_same_artifact_twice_is_one_version(either: Registry, model: str) -> None:
    first = either.register(model, artifact("a"), {"verdict": "pass"}, None)
    other = either.register(model, artifact("b"), {}, None)
    again = either.register(model, artifact("a"), {"verdict": "fail"}, None)
    assert (first.number, other.number, again.number) == ("1", "2", "1")
    assert again.tags["verdict"] == "fail"


def test_a_race_to_register_one_artifact_gives_one_version(registry: MLflow, model: str) -> None:
    with ThreadPoolExecutor() as pool:
        versions = list(pool.map(lambda _: registry.register(model, artifact("a"), {}, None), range(6)))
    assert {version.number for version in versions} == {"1"}


def test_an_alias_moves_only_from_where_it_is_expected(either: Registry, model: str) -> None:
    for name in "ab":
        either.register(model, artifact(name), {}, None)
    assert either.version_by_alias(model, "champion") is None
    either.move_alias(model, "champion", "1", None)
    with pytest.raises(Conflict, match="champion stands at"):
        either.move_alias(model, "champion", "2", None)
    either.move_alias(model, "champion", "2", "1")
    champion = either.version_by_alias(model, "champion")
    assert champion is not None
    assert champion.number == "2"
    either.move_alias(model, "champion", None, "2")
    assert either.version_by_alias(model, "champion") is None


def test_of_two_promotions_at_once_one_wins(registry: MLflow, model: str) -> None:
    for name in "abcd":
        registry.register(model, artifact(name), {}, None)

    def promote(number: str) -> bool:
        try:
            registry.move_alias(model, "champion", number, None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        won = list(pool.map(promote, "1234"))
    assert won.count(True) == 1


def test_an_alias_that_never_was_can_be_removed_without_harm(either: Registry, model: str) -> None:
    either.move_alias(model, "challenger", None, None)
    assert either.version_by_alias(model, "challenger") is None


def test_the_alias_is_readable_by_the_servers_rest_call(registry: MLflow, server: str, model: str) -> None:
    registry.register(model, artifact("a"), {}, None)
    registry.move_alias(model, "champion", "1", None)
    query = {"name": model, "alias": "champion"}
    answer = httpx.get(f"{server}/api/2.0/mlflow/registered-models/alias", params=query, trust_env=False).json()
    tags = {tag["key"]: tag["value"] for tag in answer["model_version"]["tags"]}
    assert tags == {"artifact_uri": "/home/runs/a/manifest.json", "artifact_digest": "a"}


def test_evidence_is_attached_to_the_run_that_made_the_model(
    registry: MLflow, server: str, model: str, tmp_path: Path
) -> None:
    api = f"{server}/api/2.0/mlflow"
    with httpx.Client(trust_env=False) as client:
        experiment = client.post(f"{api}/experiments/create", json={"name": model}).json()["experiment_id"]
        run = client.post(f"{api}/runs/create", json={"experiment_id": experiment}).json()["run"]["info"]["run_id"]
        version = registry.register(model, artifact("a"), {}, run)
        (tmp_path / "card.md").write_text("# a card")
        registry.attach(run, [tmp_path / "card.md"], "evaluation")
        registry.attach(run, [tmp_path / "card.md"], "evaluation")
        registry.describe(run, {"verdict": "fail"}, "# a card" * 5000)
        tags = client.get(f"{api}/runs/get", params={"run_id": run}).json()["run"]["data"]["tags"]
        listed = client.get(f"{api}/artifacts/list", params={"run_id": run, "path": "evaluation"}).json()["files"]
        registered_version = client.get(
            f"{api}/model-versions/get", params={"name": model, "version": version.number}
        ).json()
    assert [file["path"] for file in listed] == ["evaluation/card.md"]
    assert registered_version["model_version"]["run_id"] == run
    assert {"key": "verdict", "value": "fail"} in tags
    assert any(tag["key"] == "mlflow.note.content" and tag["value"].startswith("# a card") for tag in tags)
    assert registry.run_url(run) == f"{server}/#/experiments/{experiment}/runs/{run}/artifacts"


def test_reasons_longer_than_mlflow_takes_are_cut(registry: MLflow, model: str) -> None:
    registry.register(model, artifact("a"), {}, None)
    registry.set_tags(model, "1", {"reasons": "x" * 20_000})
    assert set(registry.version(model, "1").tags["reasons"]) == {"x"}


def test_a_version_that_is_not_there_is_named(either: Registry, model: str) -> None:
    with pytest.raises(UserMistake, match="9"):
        either.version(model, "9")


def test_a_server_that_is_away_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="MLflow at http"):
        MLflow("http://127.0.0.1:9", tmp_path).version_by_alias("flights", "champion")


@contextmanager
def cutting(server: str, path: str) -> Iterator[str]:
    """The server's URL through a proxy that passes on one call to `path`, loses its answer, and is down from then on."""
    gone = Event()

    class Cutting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if gone.is_set():
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = httpx.request(
                self.command, server + self.path, content=body, headers={"Content-Type": "application/json"}
            )
            if path in self.path:
                gone.set()
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_PATCH = do_GET  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as proxy:
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


def test_a_server_that_dies_half_way_through_a_registration_gives_one_version_all_the_same(
    registry: MLflow, server: str, model: str, tmp_path: Path
) -> None:
    with cutting(server, "model-versions/create") as url, pytest.raises(Unavailable):
        MLflow(url, tmp_path / "locks").register(model, artifact("a"), {"run": "r"}, None)
    assert registry.register(model, artifact("a"), {"run": "r"}, None).number == "1"
    with pytest.raises(UserMistake):
        registry.version(model, "2")
