"""Registry over MLflow's client: versions found again by their artifact's digest, aliases moved by compare-and-set.

MLflow offers no conditional alias write, so every writer of this machine takes one file lock per model, and a move is
read back. Several machines that promote one model at once need a lock of their own around `move_alias`.
"""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from include.artifacts.store import Reference
from include.domain.errors import Conflict, Unavailable, UserMistake
from include.ports.registry import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

#: MLflow cuts longer tag values off.
TAG_LENGTH = 5000
#: The tag that MLflow's pages show as a run's description.
DESCRIPTION = "mlflow.note.content"
#: The artifacts of a run from which it can be rebuilt, and what came of it.
RECORD = ("record/dataset.json", "record/job.json", "model/manifest.json")
#: MLflow's error codes for a request that is wrong however often it is sent.
REQUEST_ERRORS = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}


@dataclass(frozen=True)
class MLflow:
    """The registry at the MLflow server `url`; `locks` is a folder on a disk that all writers of this machine share."""

    url: str
    locks: Path

    def register(self, model: str, artifact: Reference, tags: Mapping[str, str], run_id: str | None) -> Version:
        """Return the version of this artifact; the same artifact twice gives the same version, its tags renewed."""
        with self._locked(model) as client:
            existing = self._find(client, model, artifact.digest)
            if existing is None:
                # A file's path is no source MLflow accepts; the tags below are what the model servers read.
                source = f"runs:/{run_id}/model" if run_id else f"perennial:/{model}/{artifact.digest}"
                own_tags = {"artifact_uri": artifact.uri, "artifact_digest": artifact.digest}
                existing = client.create_model_version(model, source, run_id, tags={**_cut(tags), **own_tags})
            else:
                self._set_tags(client, model, existing.version, tags)
            return _version(client.get_model_version(model, existing.version))

    def version(self, model: str, number: str) -> Version:
        """Return the version of that number. Raises UserMistake when there is none."""
        with self._client() as client:
            return _version(client.get_model_version(model, number))

    def version_by_alias(self, model: str, alias: str) -> Version | None:
        """Return the version that the alias names; None when it names none."""
        with self._client() as client:
            number = self._number(client, model, alias)
            return None if number is None else _version(client.get_model_version(model, number))

    def move_alias(self, model: str, alias: str, number: str | None, expected: str | None) -> None:
        """Point the alias at a version; None removes it. Raises Conflict when it does not stand at `expected` now."""
        with self._locked(model) as client:
            self._expect(client, model, alias, expected)
            if number is not None:
                client.set_registered_model_alias(model, alias, number)
            elif expected is not None:
                client.delete_registered_model_alias(model, alias)
            self._expect(client, model, alias, number)

    def set_tags(self, model: str, number: str, tags: Mapping[str, str]) -> None:
        """Set these tags of the version and leave its others; long values are cut."""
        with self._client() as client:
            self._set_tags(client, model, number, tags)

    def attach(self, run_id: str, files: Iterable[Path], folder: str) -> None:
        """Log files (plots, verdicts, cards) to a folder of the tracking run; one of the same name is replaced."""
        with self._client() as client:
            for file in files:
                client.log_artifact(run_id, str(file), folder)

    def describe(self, run_id: str, tags: Mapping[str, str], text: str) -> None:
        """Set tags of the tracking run, to search by, and its description in Markdown, for people."""
        with self._client() as client:
            for name, value in _cut({**tags, DESCRIPTION: text}).items():
                client.set_tag(run_id, name, value)

    def download_record(self, run_id: str, folder: Path) -> dict[str, str]:
        """Write what the trainer recorded with the run to the folder, and return the run's tags.

        Raises UserMistake for a run that is not there or whose record is not whole.
        """
        from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]
        folder.mkdir(parents=True, exist_ok=True)
        with self._client() as client:
            tags = dict(client.get_run(run_id).data.tags)
            for path in RECORD:
                logged = {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0])}
                if path not in logged:
                    raise UserMistake(f"run {run_id} has no {path}: it did not finish, or was not sent to MLflow whole")
                Path(client.download_artifacts(run_id, path, str(folder))).rename(folder / Path(path).name)
        return tags

    def run_url(self, run_id: str) -> str:
        """Return the URL at which a person sees the tracking run's artifacts."""
        with self._client() as client:
            experiment = client.get_run(run_id).info.experiment_id
        return f"{self.url}/#/experiments/{experiment}/runs/{run_id}/artifacts"

    def _find(self, client: "MlflowClient", model: str, digest: str) -> "ModelVersion | None":
        """Return the oldest version of the artifact with this digest."""
        versions = client.search_model_versions(f"name='{model}' and tags.artifact_digest='{digest}'")
        return min(versions, key=lambda version: int(version.version), default=None)

    def _expect(self, client: "MlflowClient", model: str, alias: str, expected: str | None) -> None:
        if (now := self._number(client, model, alias)) != expected:
            raise Conflict(
                f"{model}: {alias} stands at {_version_name(now)}, not at {_version_name(expected)}: somebody moved it; "
                "look at the registry and start again"
            )

    def _number(self, client: "MlflowClient", model: str, alias: str) -> str | None:
        number = _registered_model(client, model).aliases.get(alias)
        return None if number is None else str(number)

    def _set_tags(self, client: "MlflowClient", model: str, number: str, tags: Mapping[str, str]) -> None:
        for name, value in _cut(tags).items():
            client.set_model_version_tag(model, number, name, value)

    @contextmanager
    def _locked(self, model: str) -> Iterator["MlflowClient"]:
        """Yield a client while no other process of this machine writes to the model's registry."""
        self.locks.mkdir(parents=True, exist_ok=True)
        with self._client() as client, (self.locks / f"registry-{model}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _registered_model(client, model)
            yield client

    @contextmanager
    def _client(self) -> Iterator["MlflowClient"]:
        """Yield a client whose errors are ours: UserMistake for a wrong request, Unavailable for all else."""
        from mlflow import MlflowClient
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
        from mlflow.exceptions import MlflowException

        # Airflow retries the task; MLflow's own seven tries would hold the worker for minutes.
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)  # type: ignore[no-untyped-call]
        try:
            yield MlflowClient(self.url)
        except MlflowException as error:
            kind = UserMistake if error.error_code in REQUEST_ERRORS else Unavailable
            raise kind(f"MLflow at {self.url}: {' '.join(str(error).split())[:300]}") from None


def _registered_model(client: "MlflowClient", model: str) -> "RegisteredModel":
    """Return the registered model; a new one is created."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        return client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_registered_model(model)


def _version(version: "ModelVersion") -> Version:
    tags = dict(version.tags)
    artifact = Reference(tags.get("artifact_uri", ""), tags.get("artifact_digest", ""))
    return Version(version.name, str(version.version), artifact, tags)


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:TAG_LENGTH] for name, value in tags.items()}


def _version_name(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"
