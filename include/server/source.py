"""Where a slot learns which version it should serve."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from include.domain.errors import Unavailable
from include.server.model import Named

#: MLflow's answers for an alias or a model that is not there.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Alias:
    """A registered model's alias at an MLflow server, over its REST API."""

    registry: str
    model: str
    alias: str
    timeout: float = 3.0

    def __str__(self) -> str:
        return f"alias {self.alias} of {self.model}"

    def __call__(self) -> Named | None:
        """The version that the alias names, None when it names none. Raises Unavailable."""
        query = urllib.parse.urlencode({"name": self.model, "alias": self.alias})
        url = f"{self.registry.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{query}"
        try:
            # A proxy of the environment is not meant for a registry in the house.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=self.timeout) as answer:
                return self._named(json.load(answer)["model_version"])
        except urllib.error.HTTPError as fault:
            if _code(fault) in ABSENT:
                return None
            raise Unavailable(f"the registry at {self.registry} answers {fault.code}") from None
        except (OSError, ValueError, KeyError, TypeError) as fault:
            reason = getattr(fault, "reason", fault)
            raise Unavailable(f"the registry at {self.registry} does not answer: {reason}") from None

    def _named(self, version: dict[str, Any]) -> Named:
        tags = {t["key"]: t["value"] for t in version.get("tags", [])}
        if "artifact_uri" not in tags or "artifact_digest" not in tags:
            raise Unavailable(
                f"version {version['version']} of {self.model} lacks the tags artifact_uri and artifact_digest"
            )
        return Named(str(version["version"]), tags["artifact_uri"], tags["artifact_digest"])


@dataclass(frozen=True)
class Fixed:
    """One artifact, without a registry."""

    named: Named

    def __str__(self) -> str:
        return f"artifact {self.named.uri}"

    def __call__(self) -> Named:
        return self.named


def _code(fault: urllib.error.HTTPError) -> str | None:
    try:
        body = json.load(fault)
    except ValueError:
        return None
    return str(body.get("error_code")) if isinstance(body, dict) else None
