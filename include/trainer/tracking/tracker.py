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

from include.trainer.job import Tracking

PATIENCE = 5.0  #: seconds an answer may take
LONGEST = 5000  #: characters of a value that MLflow takes; a longer one it refuses, and all after it would wait
PAUSE = 30.0  #: seconds between tries while the server is away
#: How a run's artifacts are named where its server stores them itself; others go to a store that only MLflow can reach.
PROXIED = "mlflow-artifacts:/"
JOURNAL, STATE = "tracking.jsonl", "tracking.json"


class Tracker:
    """One MLflow run, kept in `<folder>/tracking.jsonl` (the records) and `tracking.json` (where to, run id, records sent).

    `curves` holds the metrics by name as `[step, value]`, in the order in which they came.
    """

    def __init__(self, folder: Path, target: Tracking | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.journal = folder / JOURNAL
        self.state_file = folder / STATE
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.run_id: str | None = state.get("run_id")
        self.store: str = state.get("store", "")
        self.sent: int = state.get("sent", 0)
        self.next_try = 0.0
        self.curves: dict[str, list[list[float]]] = defaultdict(list)

    def say(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201 - the launcher reads these lines

    def params(self, values: Mapping[str, str]) -> None:
        self._record("runs/log-batch", {"params": [{"key": k, "value": v[:LONGEST]} for k, v in values.items()]})

    def tags(self, values: Mapping[str, str]) -> None:
        self._record("runs/log-batch", {"tags": [{"key": k, "value": v[:LONGEST]} for k, v in values.items()]})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        at = _now()
        known = {k: v for k, v in values.items() if math.isfinite(v)}  # MLflow's database refuses NaN
        for name, value in known.items():
            self.curves[name].append([step, value])
        entries = [{"key": k, "value": v, "timestamp": at, "step": step} for k, v in known.items()]
        self._record("runs/log-batch", {"metrics": entries})

    def dataset(self, name: str, digest: str, uri: str, context: str, profile: Mapping[str, Any]) -> None:
        """One input of the run; `context` is its part, e.g. training, and `profile` what MLflow's page says of it."""
        entry = {"name": name, "digest": digest[:36], "source_type": "local", "source": json.dumps({"uri": uri}),
                 "profile": json.dumps(profile)}  # fmt: skip
        tags = [{"key": "mlflow.data.context", "value": context}]
        self._record("runs/log-inputs", {"datasets": [{"tags": tags, "dataset": entry}]})

    def files(self, folder: str, paths: Iterable[Path]) -> None:
        """Files for the run's folder of that name; they must stay where they are until they are sent."""
        for path in paths:
            self._record("artifacts", {"folder": folder, "path": str(path)})

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
                self.run_id, self.store = _create(client, self.target, json.loads(lines[0])["at"])
                self._save()
            for line in lines[self.sent :]:
                record = json.loads(line)
                if record["call"] == "artifacts":
                    self._upload(client, **record["body"])
                else:
                    _post(client, record["call"], {"run_id": self.run_id, **record["body"]})
                self.sent += 1
                self._save()

    def _upload(self, client: httpx.Client, folder: str, path: str) -> None:
        file = Path(path)
        if not self.store.startswith(PROXIED):
            self.say(f"{file} is not in MLflow: its server keeps artifacts in {self.store or 'no store of its own'}")
        elif not file.is_file():
            self.say(f"{file} is not in MLflow: it was removed before the server answered")
        else:
            place = f"{self.store.removeprefix(PROXIED).lstrip('/')}/{folder}/{file.name}"
            with file.open("rb") as content:
                client.put(
                    client.base_url.join(f"../mlflow-artifacts/artifacts/{place}"), content=content
                ).raise_for_status()

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
            self.flush()
        except httpx.HTTPError as fault:
            self.next_try = time.monotonic() + PAUSE
            self.say(f"MLflow at {self.target.uri}: {_plain(fault)}; training goes on and records wait")

    def _lines(self) -> list[str]:
        return self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []

    def _save(self) -> None:
        part = self.state_file.with_suffix(".part")
        target = asdict(self.target) if self.target else None
        part.write_text(json.dumps({"target": target, "run_id": self.run_id, "store": self.store, "sent": self.sent}))
        part.replace(self.state_file)


class Silent(Tracker):
    """The tracker of every process but the first."""

    def __init__(self) -> None:
        self.target = None
        self.run_id = None
        self.curves = defaultdict(list)

    def say(self, line: str) -> None:
        pass

    def close(self, status: str) -> None:
        pass


def send_left(folder: Path) -> int:
    """Send what waits of the runs in the folder's folders, each to its own server; the records that still wait.

    A run whose trainer is at work sends its own.
    """
    left = 0
    for journal in sorted(folder.glob(f"*/*/{JOURNAL}")):
        with suppress(BlockingIOError), journal.with_name("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left += _send(journal)
    return left


def _send(journal: Path) -> int:
    target = Tracking(**json.loads(journal.with_name(STATE).read_text())["target"])
    tracker = Tracker(journal.parent, target)
    waiting = len(tracker._lines())
    if tracker.sent < waiting:
        try:
            tracker.flush()
            tracker.say(f"MLflow has {journal.parent} now")
        except httpx.HTTPError as fault:
            tracker.say(f"MLflow at {target.uri}: {_plain(fault)}; {waiting - tracker.sent} records wait in {journal}")
    return waiting - tracker.sent


def _create(client: httpx.Client, target: Tracking, at: int) -> tuple[str, str]:
    """The new run's id and where its artifacts go."""
    tags = [{"key": k, "value": str(v)} for k, v in target.tags.items()]
    experiment = _experiment(client, target.experiment)
    body = {"experiment_id": experiment, "run_name": target.run_name, "start_time": at, "tags": tags}
    info = _post(client, "runs/create", body)["run"]["info"]
    return info["run_id"], info.get("artifact_uri", "")


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
