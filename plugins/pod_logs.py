"""The lines of several pods' logs, each once, as they come."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from kubernetes import client as kube

from include.domain.training.pods import CONTAINER


class PodLogs:
    """Reads the logs of a training's pods; it remembers the timestamp of the last line of each."""

    def __init__(self, client: kube.CoreV1Api, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._last: dict[str, str] = {}

    def new_lines(self, pods: Sequence[kube.V1Pod]) -> Iterator[str]:
        """Yield the lines since the last call; a pod that has no log yet, or none any more, has none."""
        for pod in sorted(pods, key=lambda pod: str(pod.metadata.name)):
            name = pod.metadata.name
            for timestamp, line in self._lines(name):
                if timestamp > self._last.get(name, ""):
                    self._last[name] = timestamp
                    yield f"[{name}] {line}"

    def _lines(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the timestamp and the text of each line that may be new."""
        try:
            answer = self._client.read_namespaced_pod_log(
                name,
                self._namespace,
                container=CONTAINER,
                timestamps=True,
                since_seconds=self._seconds_since_last(name),
                _preload_content=False,  # the client would hand over the bytes as Python writes them: b'…'
            )
        except kube.ApiException:
            return
        for line in answer.data.decode(errors="replace").splitlines():
            timestamp, _, text = line.partition(" ")
            yield timestamp, text

    def _seconds_since_last(self, name: str) -> int | None:
        """Return seconds that reach back behind the last line read; the clocks may differ by a few."""
        if name not in self._last:
            return None
        last = datetime.fromisoformat(self._last[name][:26].rstrip("Z") + "+00:00")
        return max(1, int((datetime.now(UTC) - last).total_seconds()) + 5)
