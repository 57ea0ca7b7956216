"""The Kubernetes API as the adapters use it: whole objects by their path, and errors that say what was asked."""

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
    "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Absent(Unavailable):
    """The object is not there, or not yet."""


def name_of(model: str) -> str:
    """The model's name as Kubernetes takes it: without underscores."""
    return model.replace("_", "-")


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that `kubeconfig` names, or else that this pod runs in.

    A path is the API's own with `namespaced` where the namespace belongs: `apis/apps/v1/namespaced/deployments/web`.
    """

    namespace: str
    kubeconfig: str = ""

    def get(self, path: str) -> dict[str, Any]:
        """Raises Absent, or Unavailable for every other answer."""
        return self._ask("GET", path)

    def apply(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply: the fields of `content`, and no others, become ours, whoever set them before."""
        return self._ask("PATCH", path, content, APPLY, [("fieldManager", FIELD_MANAGER), ("force", "true")])

    def merge(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """JSON merge patch of an object that is there."""
        return self._ask("PATCH", path, content, MERGE, [("fieldManager", FIELD_MANAGER)])

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "", query: Any = None
    ) -> dict[str, Any]:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

        place = "/" + path.replace("/namespaced/", f"/namespaces/{self.namespace}/")
        try:
            with client.ApiClient(self._configuration()) as api:
                return dict(api.call_api(
                    place, method, query_params=query or [], body=body,
                    header_params={"Accept": "application/json"} | ({"Content-Type": kind} if kind else {}),
                    response_types_map={200: "object", 201: "object"}, auth_settings=["BearerToken"],
                    _return_http_data_only=True, _request_timeout=TIMEOUT,
                ))  # fmt: skip
        except client.ApiException as fault:
            error = Absent if fault.status == NOT_FOUND else Unavailable
            raise error(f"{path} in namespace {self.namespace}: {_said(fault)}") from None
        except (HTTPError, config.ConfigException) as fault:
            raise Unavailable(f"no answer from Kubernetes (PERENNIAL_KUBECONFIG={self.kubeconfig}): {fault}") from None

    def _configuration(self) -> Any:
        """Raises ConfigException outside a pod where no kubeconfig is named."""
        from kubernetes import client, config

        found = client.Configuration()
        found.retries = False  # the callers wait and ask again, or Airflow does
        if self.kubeconfig:
            config.load_kube_config(self.kubeconfig, client_configuration=found)
        else:
            config.load_incluster_config(client_configuration=found)
        return found


def _said(fault: Any) -> str:
    """The API server's own sentence, or its status line."""
    try:
        return str(json.loads(fault.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{fault.status} {fault.reason}"
