"""The Kubernetes API as the adapters use it: whole objects by their path, and errors that name the object."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.domain.errors import Unavailable

#: Under this name the API server keeps which fields a rollout owns.
FIELD_MANAGER = "perennial-rollout"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
#: Seconds for one answer.
TIMEOUT = 10.0
NOT_FOUND = 404
#: The user of all images.
USER = 10001
#: What Pod Security `restricted` asks of a pod and of each of its containers.
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Absent(Unavailable):
    """The object does not exist, or not yet."""


def name_of(model: str) -> str:
    """Return the model's name as Kubernetes takes it: without underscores."""
    return model.replace("_", "-")


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that `kubeconfig` names, or else that this pod runs in.

    A path is the API's own with `namespaced` where the namespace belongs: `apis/apps/v1/namespaced/deployments/web`.
    """

    namespace: str
    kubeconfig: str = ""

    def get(self, path: str) -> dict[str, Any]:
        """Return the object. Raises Absent when it does not exist, Unavailable for every other answer."""
        return self._request("GET", path)

    def apply(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Apply `content` on the server: its fields, and no others, become ours, whoever set them before. Return the object."""
        return self._request("PATCH", path, content, APPLY, [("fieldManager", FIELD_MANAGER), ("force", "true")])

    def merge(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `content` into an object that exists (JSON merge patch). Return the object."""
        return self._request("PATCH", path, content, MERGE, [("fieldManager", FIELD_MANAGER)])

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "", query: Any = None
    ) -> dict[str, Any]:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

        place = "/" + path.replace("/namespaced/", f"/namespaces/{self.namespace}/")
        try:
            with client.ApiClient(self._configuration()) as api:
                return dict(
                    api.call_api(
                        place,
                        method,
                        query_params=query or [],
                        body=body,
                        header_params={"Accept": "application/json"} | ({"Content-Type": kind} if kind else {}),
                        response_types_map={200: "object", 201: "object"},
                        auth_settings=["BearerToken"],
                        _return_http_data_only=True,
                        _request_timeout=TIMEOUT,
                    )
                )
        except client.ApiException as error:
            kind_of_error = Absent if error.status == NOT_FOUND else Unavailable
            raise kind_of_error(f"{path} in namespace {self.namespace}: {_message(error)}") from None
        except (HTTPError, config.ConfigException) as error:
            raise Unavailable(f"no answer from Kubernetes (PERENNIAL_KUBECONFIG={self.kubeconfig}): {error}") from None

    def _configuration(self) -> Any:
        """Return the client's settings. Raises ConfigException outside a pod where no kubeconfig is named."""
        from kubernetes import client, config

        settings = client.Configuration()
        settings.retries = False  # the callers wait and ask again, or Airflow does
        if self.kubeconfig:
            config.load_kube_config(self.kubeconfig, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
        return settings


def _message(error: Any) -> str:
    """Return the API server's own sentence, or its status line."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"
