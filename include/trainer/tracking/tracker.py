"""MLflow tracking over its REST API: every record goes to a file first and from there to the server when it answers.

So MLflow being away costs nothing: training goes on, and what could not be sent is sent with the next record, at the
end of the model's next training, or by `python -m include.trainer.tracking <folder>`. Importing mlflow itself would
take longer than a small training.
"""

import fcntl
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import httpx

from include.artifacts.atomic_write import write_atomically
from include.trainer.job import TrackingTarget

TIMEOUT = 5.0  #: seconds an answer may take
MAX_VALUE_LENGTH = 5000  #: characters; a longer value MLflow refuses, and all records after it would wait
RETRY_INTERVAL = 30.0  #: seconds between tries while the server is away
#: How a run's artifacts are named where its server stores them itself; others go to a store that only MLflow can reach.
PROXIED = "mlflow-artifacts:/"
JOURNAL, STATE = "tracking.jsonl", "tracking.json"


class Tracker:
    """One MLflow run, kept in `<folder>/tracking.jsonl` (the records) and `tracking.json` (where to, run id, records sent).

    `curves` holds the metrics by name as (step, value), in the order in which they came.
    """

    def __init__(self, folder: Path, target: TrackingTarget | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.journal = folder / JOURNAL
        self.state_file = folder / STATE
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.run_id: str | None = state.get("run_id")
        self.artifact_root: str = state.get("store", "")
        self.sent: int = state.get("sent", 0)
        self.next_try = 0.0
        self.curves: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def log(self, line: str) -> None:
        """Print a line, which the launcher reads."""
        print(line, flush=True)  # noqa: T201

    def log_params(self, values: Mapping[str, str]) -> None:
        """Record parameters of the run."""
        self._record("runs/log-batch", {"params": _entries(values)})

    def set_tags(self, values: Mapping[str, str]) -> None:
        self._record("runs/log-batch", {"tags": _entries(values)})

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record the metrics and add them to `curves`; NaN and infinity are left out, since MLflow's database refuses them."""
        at = _now()
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for name, value in finite.items():
            self.curves[name].append((step, value))
        entries = [{"key": k, "value": v, "timestamp": at, "step": step} for k, v in finite.items()]
        self._record("runs/log-batch", {"metrics": entries})

    def log_input(self, name: str, digest: str, uri: str, context: str, profile: Mapping[str, Any]) -> None:
        """Record one input of the run; `context` is its part, e.g. training, and `profile` what MLflow's page says of it."""
        dataset = {
            "name": name,
            "digest": digest[:36],
            "source_type": "local",
            "source": json.dumps({"uri": uri}),
            "profile": json.dumps(profile),
        }
        tags = [{"key": "mlflow.data.context", "value": context}]
        self._record("runs/log-inputs", {"datasets": [{"tags": tags, "dataset": dataset}]})

    def log_artifacts(self, folder: str, paths: Iterable[Path]) -> None:
        """Record files for the run's folder of that name; they must stay where they are until they are sent."""
        for path in paths:
            self._record("artifacts", {"folder": folder, "path": str(path)})

    def close(self, status: str) -> None:
        """End the run as `FINISHED`, `FAILED` or `KILLED`, and log how many records are left for later."""
        self.next_try = 0.0
        self._record("runs/update", {"status": status, "end_time": _now()})
        waiting = self._lines()[self.sent :] if self.target else []
        if waiting and self.target:
            self.log(f"MLflow at {self.target.uri} did not answer: {len(waiting)} records wait in {self.journal}")

    def send(self) -> None:
        """Send the records that wait. Raises httpx.HTTPError when the server is away or refuses one."""
        assert self.target is not None
        with httpx.Client(base_url=f"{self.target.uri.rstrip('/')}/api/2.0/mlflow/", timeout=TIMEOUT) as client:
            lines = self._lines()
            if self.run_id is None:
                self.run_id, self.artifact_root = _create_run(client, self.target, json.loads(lines[0])["at"])
                self._save()
            for line in lines[self.sent :]:
                record = json.loads(line)
                if record["call"] == "artifacts":
                    self._upload(client, **record["body"])
                else:
                    _post(client, record["call"], {"run_id": self.run_id, **record["body"]})
                self.sent += 1
                self._save()

    def send_or_log(self) -> int:
        """Send the records that wait, or log why that failed; return how many still wait."""
        assert self.target is not None
        total = len(self._lines())
        if self.sent < total:
            try:
                self.send()
                self.log(f"MLflow has {self.journal.parent} now")
            except httpx.HTTPError as error:
                left = f"{total - self.sent} records wait in {self.journal}"
                self.log(f"MLflow at {self.target.uri}: {_explain(error)}; {left}")
        return total - self.sent

    def _upload(self, client: httpx.Client, folder: str, path: str) -> None:
        file = Path(path)
        if not self.artifact_root.startswith(PROXIED):
            root = self.artifact_root or "no store of its own"
            self.log(f"{file} is not in MLflow: its server keeps artifacts in {root}")
        elif not file.is_file():
            self.log(f"{file} is not in MLflow: it was removed before the server answered")
        else:
            key = f"{self.artifact_root.removeprefix(PROXIED).lstrip('/')}/{folder}/{file.name}"
            url = client.base_url.join(f"../mlflow-artifacts/artifacts/{key}")
            with file.open("rb") as content:
                client.put(url, content=content).raise_for_status()

    def _record(self, call: str, body: Mapping[str, Any]) -> None:
        if self.target is None:
            return
        if not self.state_file.exists():
            self._save()
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"call": call, "at": _now(), "body": body}) + "\n")
        if time.monotonic() < self.next_try:
            return
        try:
            self.send()
        except httpx.HTTPError as error:
            self.next_try = time.monotonic() + RETRY_INTERVAL
            self.log(f"MLflow at {self.target.uri}: {_explain(error)}; training goes on and records wait")

    def _lines(self) -> list[str]:
        return self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []

    def _save(self) -> None:
        target = asdict(self.target) if self.target else None
        state = {"target": target, "run_id": self.run_id, "store": self.artifact_root, "sent": self.sent}
        write_atomically(self.state_file, json.dumps(state))


class SilentTracker(Tracker):
    """The tracker of every process but the first: it prints and records nothing."""

    def __init__(self) -> None:
        self.target = None
        self.run_id = None
        self.curves = defaultdict(list)

    def log(self, line: str) -> None:
        pass

    def close(self, status: str) -> None:
        pass


def send_waiting(folder: Path) -> int:
    """Send the waiting records of all runs below the folder, each to its own server; return how many still wait.

    A run whose trainer is at work is passed over, since that trainer sends its records.
    """
    waiting = 0
    for journal in sorted(folder.glob(f"*/*/{JOURNAL}")):
        with suppress(BlockingIOError), journal.with_name("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            target = TrackingTarget(**json.loads(journal.with_name(STATE).read_text())["target"])
            waiting += Tracker(journal.parent, target).send_or_log()
    return waiting


def _entries(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:MAX_VALUE_LENGTH]} for key, value in values.items()]


def _create_run(client: httpx.Client, target: TrackingTarget, at: int) -> tuple[str, str]:
    """Create the run; return its id and the URI below which its artifacts go."""
    tags = [{"key": k, "value": str(v)} for k, v in target.tags.items()]
    experiment = _experiment_id(client, target.experiment)
    body = {"experiment_id": experiment, "run_name": target.run_name, "start_time": at, "tags": tags}
    info = _post(client, "runs/create", body)["run"]["info"]
    return info["run_id"], info.get("artifact_uri", "")


def _experiment_id(client: httpx.Client, name: str) -> str:
    """Return the experiment's id; it is created where there is none, which another training may do at the same moment."""
    client.post("experiments/create", json={"name": name})
    answer = client.get("experiments/get-by-name", params={"experiment_name": name}).raise_for_status()
    return cast(str, answer.json()["experiment"]["experiment_id"])


def _post(client: httpx.Client, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], client.post(call, json=body).raise_for_status().json())


def _explain(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"answered {error.response.status_code}: {error.response.text[:200]}"
    return f"does not answer ({error})"


def _now() -> int:
    """Return the time in epoch milliseconds, MLflow's unit."""
    return time.time_ns() // 1_000_000
