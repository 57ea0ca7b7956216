"""The source from which a slot learns which version it should serve."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from include.domain.errors import Unavailable
from include.server.servable_model import VersionReference

#: MLflow's error codes for an alias or a model that does not exist.
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class RegistryAlias:
    """The version that an alias of a registered model names at an MLflow server, asked over its REST API."""

    registry: str
    model: str
    alias: str
    timeout: float = 3.0

    def __str__(self) -> str:
        return f"alias {self.alias} of {self.model}"

    def __call__(self) -> VersionReference | None:
        """Return the version, None if the alias names none. Raises Unavailable."""
        query = urllib.parse.urlencode({"name": self.model, "alias": self.alias})
        url = f"{self.registry.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{query}"
        try:
            # A proxy that the environment names is not meant for a registry in the same network.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=self.timeout) as response:
                return self._reference(json.load(response)["model_version"])
        except urllib.error.HTTPError as error:
            if _error_code(error) in NOT_FOUND_CODES:
                return None
            raise Unavailable(f"the registry at {self.registry} answers {error.code}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"the registry at {self.registry} does not answer: {reason}") from None

    def _reference(self, version: dict[str, Any]) -> VersionReference:
        number, tags = version["version"], {t["key"]: t["value"] for t in version.get("tags", [])}
        if "artifact_uri" not in tags or "artifact_digest" not in tags:
            raise Unavailable(f"version {number} of {self.model} lacks the tags artifact_uri and artifact_digest")
        return VersionReference(str(number), tags["artifact_uri"], tags["artifact_digest"])


@dataclass(frozen=True)
class FixedVersion:
    """One artifact, without a registry."""

    version: VersionReference

    def __str__(self) -> str:
        return f"artifact {self.version.uri}"

    def __call__(self) -> VersionReference:
        return self.version


VersionSource = RegistryAlias | FixedVersion


def _error_code(error: urllib.error.HTTPError) -> str | None:
    try:
        body = json.load(error)
    except ValueError:
        return None
    return str(body.get("error_code")) if isinstance(body, dict) else None
