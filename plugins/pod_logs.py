"""The lines of several pods' logs, each once, as they come."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from kubernetes import client as kube

from include.domain.training.pods import CONTAINER


class PodLogs:
    def __init__(self, client: kube.CoreV1Api, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._last: dict[str, str] = {}

    def new(self, pods: Sequence[kube.V1Pod]) -> Iterator[str]:
        """Lines since the last call; a pod that has no log yet, or none any more, has none."""
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.name)):
            name = pod.metadata.name
            for stamp, line in self._lines(name):
                if stamp > self._last.get(name, ""):
                    self._last[name] = stamp
                    yield f"[{name}] {line}"

    def _lines(self, name: str) -> Iterator[tuple[str, str]]:
        try:
            answer = self._client.read_namespaced_pod_log(
                name, self._namespace, container=CONTAINER, timestamps=True, since_seconds=self._since(name),
                _preload_content=False,  # the client would hand over the bytes as Python writes them: b'…'
            )  # fmt: skip
        except kube.ApiException:
            return
        for line in answer.data.decode(errors="replace").splitlines():
            stamp, _, said = line.partition(" ")
            yield stamp, said

    def _since(self, name: str) -> int | None:
        """Seconds that reach back behind the last line read; the clocks may differ by a few."""
        if name not in self._last:
            return None
        last = datetime.fromisoformat(self._last[name][:26].rstrip("Z") + "+00:00")
        return max(1, int((datetime.now(UTC) - last).total_seconds()) + 5)
