"""MLflow tracking over its REST API: every record goes to a file first and from there to the server when it answers.

So MLflow being away costs nothing: training goes on, and what could not be sent is sent with the next record, by the
next start of the same job, or by `python -m include.trainer.tracking <out>`. Importing mlflow itself would take longer
than a small training.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx

from include.trainer.job import Tracking

PATIENCE = 5.0  #: seconds an answer may take
PAUSE = 30.0  #: seconds between tries while the server is away


class Tracker:
    """One MLflow run, kept in `<folder>/tracking.jsonl` (the records) and `tracking.json` (run id, records sent)."""

    def __init__(self, folder: Path, target: Tracking | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.journal = folder / "tracking.jsonl"
        self.state_file = folder / "tracking.json"
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.run_id: str | None = state.get("run_id")
        self.sent: int = state.get("sent", 0)
        self.next_try = 0.0

    def say(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201 - the launcher reads these lines

    def params(self, values: Mapping[str, str]) -> None:
        self._record("runs/log-batch", {"params": [{"key": k, "value": v[:6000]} for k, v in values.items()]})

    def tags(self, values: Mapping[str, str]) -> None:
        self._record("runs/log-batch", {"tags": [{"key": k, "value": v} for k, v in values.items()]})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        at = _now()
        known = {k: v for k, v in values.items() if math.isfinite(v)}  # MLflow's database refuses NaN
        entries = [{"key": k, "value": v, "timestamp": at, "step": step} for k, v in known.items()]
        self._record("runs/log-batch", {"metrics": entries})

    def dataset(self, name: str, digest: str, uri: str) -> None:
        source = json.dumps({"uri": uri})
        entry = {"name": name, "digest": digest[:36], "source_type": "local", "source": source}
        context = [{"key": "mlflow.data.context", "value": "training"}]
        self._record("runs/log-inputs", {"datasets": [{"tags": context, "dataset": entry}]})

    def close(self, status: str) -> None:
        """`FINISHED`, `FAILED` or `KILLED`; says so when records are left for later."""
        self.next_try = 0.0
        self._record("runs/update", {"status": status, "end_time": _now()})
        left = self._lines()[self.sent :] if self.target else []
        if left and self.target:
            self.say(f"MLflow at {self.target.uri} did not answer: {len(left)} records wait in {self.journal}")

    def flush(self) -> None:
        """Send what waits. Raises httpx.HTTPError when the server is away or refuses it."""
        assert self.target is not None
        with httpx.Client(base_url=f"{self.target.uri.rstrip('/')}/api/2.0/mlflow/", timeout=PATIENCE) as client:
            lines = self._lines()
            if self.run_id is None:
                self.run_id = _create(client, self.target, json.loads(lines[0])["at"])
                self._save()
            for line in lines[self.sent :]:
                record = json.loads(line)
                _post(client, record["call"], {"run_id": self.run_id, **record["body"]})
                self.sent += 1
                self._save()

    def _record(self, call: str, body: Mapping[str, Any]) -> None:
        if self.target is None:
            return
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"call": call, "at": _now(), "body": body}) + "\n")
        if time.monotonic() < self.next_try:
            return
        try:
            self.flush()
        except httpx.HTTPError as fault:
            self.next_try = time.monotonic() + PAUSE
            self.say(f"MLflow at {self.target.uri}: {_plain(fault)}; training goes on and records wait")

    def _lines(self) -> list[str]:
        return self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []

    def _save(self) -> None:
        part = self.state_file.with_suffix(".part")
        part.write_text(json.dumps({"run_id": self.run_id, "sent": self.sent}))
        part.replace(self.state_file)


class Silent(Tracker):
    """The tracker of every process but the first."""

    def __init__(self) -> None:
        self.target = None
        self.run_id = None

    def say(self, line: str) -> None:
        pass

    def close(self, status: str) -> None:
        pass


def _create(client: httpx.Client, target: Tracking, at: int) -> str:
    tags = [{"key": k, "value": str(v)} for k, v in target.tags.items()]
    experiment = _experiment(client, target.experiment)
    body = {"experiment_id": experiment, "run_name": target.run_name, "start_time": at, "tags": tags}
    return cast(str, _post(client, "runs/create", body)["run"]["info"]["run_id"])


def _experiment(client: httpx.Client, name: str) -> str:
    """The experiment's id; made where there is none, which another training of the same moment may do first."""
    client.post("experiments/create", json={"name": name})
    found = client.get("experiments/get-by-name", params={"experiment_name": name}).raise_for_status()
    return cast(str, found.json()["experiment"]["experiment_id"])


def _post(client: httpx.Client, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], client.post(call, json=body).raise_for_status().json())


def _plain(fault: httpx.HTTPError) -> str:
    if isinstance(fault, httpx.HTTPStatusError):
        return f"answered {fault.response.status_code}: {fault.response.text[:200]}"
    return f"does not answer ({fault})"


def _now() -> int:
    """Epoch milliseconds, MLflow's unit."""
    return time.time_ns() // 1_000_000
