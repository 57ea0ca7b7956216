"""Airflow by its REST API: what a person does in the UI, for the demo and the tests."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from include.domain.errors import Unavailable

FINISHED = {"success", "failed"}


@dataclass(frozen=True)
class TaskRun:
    """One task of a run: its state, how long it worked, in seconds, and which attempt that was."""

    task: str
    state: str | None
    seconds: float
    attempt: int


def connection_body(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection of `airflow_settings.yaml` as Airflow's API takes it; `conn_extra` may be a mapping or JSON."""
    fields = {key.removeprefix("conn_"): value for key, value in row.items() if value not in (None, "")}
    fields = {{"id": "connection_id", "type": "conn_type"}.get(name, name): value for name, value in fields.items()}
    if isinstance(extra := fields.get("extra"), Mapping):
        fields["extra"] = json.dumps(extra)
    return fields


class Airflow:
    """A logged-in session of Airflow's REST API. Every call raises Unavailable with Airflow's words when it is refused."""

    def __init__(self, url: str, password: str, user: str = "admin") -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30, transport=httpx.HTTPTransport(retries=3))
        login = self._call("POST", "/auth/token", json={"username": user, "password": password})
        self.authorization = f"Bearer {login['access_token']}"
        self._client.headers["Authorization"] = self.authorization

    def __enter__(self) -> "Airflow":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def apply(self, settings_file: Path) -> None:
        """Create or update the file's connections, pools and variables."""
        content = yaml.safe_load(settings_file.read_text())["airflow"]
        for row in content.get("connections") or []:
            self._upsert("connections", row["conn_id"], connection_body(row))
        for row in content.get("pools") or []:
            body = {
                "name": row["pool_name"],
                "slots": row["pool_slot"],
                "description": row["pool_description"],
                "include_deferred": False,
            }
            self._upsert("pools", row["pool_name"], body)
        for row in content.get("variables") or []:
            self._upsert(
                "variables", row["variable_name"], {"key": row["variable_name"], "value": row["variable_value"]}
            )

    def await_dags(self, names: set[str], timeout: float = 120) -> None:
        """Return once Airflow has parsed all of these DAGs. Raises Unavailable with its import errors at the time-out."""
        deadline = time.monotonic() + timeout
        while missing := names - {d["dag_id"] for d in self.get("/dags", limit=1000)["dags"]}:
            if time.monotonic() > deadline:
                errors = [e["stack_trace"] for e in self.get("/importErrors")["import_errors"]]
                raise Unavailable(
                    f"Airflow does not show {', '.join(sorted(missing))}; import errors: {errors or 'none'}"
                )
            time.sleep(0.5)

    def pause(self, dag: str, paused: bool) -> None:
        """Pause a DAG, or let it run."""
        self._call("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": paused})

    def trigger(self, dag: str, conf: Mapping[str, Any], note: str | None = None) -> str:
        """Start a run without a logical date; return its id."""
        body = {"logical_date": None, "conf": dict(conf), "note": note}
        return str(self._call("POST", f"/api/v2/dags/{dag}/dagRuns", json=body)["dag_run_id"])

    def announce(self, asset: str, extra: Mapping[str, Any]) -> None:
        """Create an event of the asset, which starts what is scheduled on it."""
        number = next(a["id"] for a in self.get("/assets", limit=1000)["assets"] if a["name"] == asset)
        self._call("POST", "/api/v2/assets/events", json={"asset_id": number, "extra": dict(extra)})

    def mark(self, dag: str, run: str, state: str) -> None:
        """End a run as `success` or `failed`, whatever its tasks are doing."""
        self._call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{run}", json={"state": state})

    def run(self, dag: str, run: str) -> dict[str, Any]:
        """Return a run as Airflow's API describes it."""
        return self.get(f"/dags/{dag}/dagRuns/{run}")

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """Return the DAG's last hundred runs, newest first."""
        return list(self.get(f"/dags/{dag}/dagRuns", order_by="-run_after", limit=100)["dag_runs"])

    def tasks(self, dag: str, run: str) -> list[TaskRun]:
        """Return the run's tasks in the order in which they started."""
        rows = self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances", limit=200)["task_instances"]
        rows.sort(key=lambda r: (r["start_date"] is None, r["start_date"] or "", r["task_id"]))
        return [TaskRun(r["task_id"], r["state"], float(r["duration"] or 0), r["try_number"]) for r in rows]

    def follow(self, dag: str, run: str, timeout: float = 900) -> Iterator[list[TaskRun]]:
        """Yield the run's tasks each time they change, until it is finished. Raises Unavailable at the time-out."""
        deadline, previous = time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            state, tasks = self.run(dag, run)["state"], self.tasks(dag, run)
            snapshot = [(t.task, t.state, t.attempt) for t in tasks]
            if snapshot != previous or state in FINISHED:
                yield tasks
            if state in FINISHED:
                return
            previous = snapshot
            time.sleep(0.4)
        raise Unavailable(f"{dag} run {run} did not finish within {timeout:.0f} s")

    def answer(self, dag: str, run: str, task: str, option: str, reason: str) -> None:
        """Answer an approval as the logged-in user."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [option], "params_input": {"reason": reason}})

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """Return what a task left for others."""
        return self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/{key}")["value"]

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Return the JSON at a path of the REST API, version 2."""
        return self._call("GET", f"/api/v2{path}", params=query)

    def _upsert(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        exists = self._client.get(f"/api/v2/{kind}/{key}").status_code == 200
        self._call("PATCH" if exists else "POST", f"/api/v2/{kind}" + (f"/{key}" if exists else ""), json=dict(body))

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise Unavailable(f"Airflow at {self.url} does not answer {method} {path}: {error}") from error
        if answer.is_error:
            raise Unavailable(f"Airflow refused {method} {path} ({answer.status_code}): {answer.text[:500]}")
        return dict(answer.json()) if answer.content else {}
