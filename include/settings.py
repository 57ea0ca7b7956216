"""The settings of an installation: its folders, ports and images. Nothing else reads the environment."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

if TYPE_CHECKING:
    from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
#: The embedded slots.
SLOTS = ("stable", "canary")
#: How far apart the ports of a slot's servers are.
PORT_STRIDE = 10

Port = Annotated[int, Ge(1), Le(65535)]


@dataclass(frozen=True)
class Settings:
    """Each field is read from `PERENNIAL_<NAME>`; the embedded stack's `make up` sets those that are not defaults."""

    home: Path = ROOT / ".perennial"
    models: Path = ROOT / "include" / "models"  #: the folder of the specs
    host: str = "127.0.0.1"
    model: str = "flights"  #: the model that the embedded slots serve
    online: str = ""  #: the online store: `redis://…`, or a folder; one under the home when empty
    airflow_port: Port = 8080
    mlflow_port: Port = 5000
    gateway_port: Port = 8088
    gateway_admin_port: Port = 8089
    stable_port: Port = 9001
    canary_port: Port = 9002
    servers: Annotated[int, Ge(1)] = 1  #: of each embedded slot; one keeps one core busy
    launcher: Literal["local", "kubernetes"] = "local"  #: where trainings run
    router: Literal["haproxy", "gateway", "replicas"] = "haproxy"  #: what splits live traffic
    storage: str = ""  #: `s3://bucket/prefix` for tables and runs; `home` keeps them when empty
    kubeconfig: str = ""  #: the file that names the cluster; a pod's own service account when empty
    namespace: str = "perennial"  #: where in the cluster everything is
    trainer_image: str = "perennial-trainer:latest"  #: of training pods
    pull_policy: str = "IfNotPresent"  #: of that image
    slots: str = ""  #: URL of the slots' servers, with `{model}` and `{slot}`, where they are not the embedded ones
    mlflow: str = ""  #: URL of the MLflow server, where it is not the embedded one
    spark: str = "local[*]"  #: Spark's master; `submitted` is the session of the spark-submit that runs this
    spark_image: str = "perennial-spark:latest"  #: of Spark's driver and executors on a cluster
    spark_version: str = "4.3.0"  #: the version of Spark in that image

    @property
    def airflow_url(self) -> str:
        """Airflow's pages and REST API."""
        return f"http://{self.host}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's pages and REST API."""
        return self.mlflow or f"http://{self.host}:{self.mlflow_port}"

    @property
    def gateway_url(self) -> str:
        """The gateway, to which clients send their requests."""
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def gateway_admin_url(self) -> str:
        """The gateway's counters."""
        return f"http://{self.host}:{self.gateway_admin_port}"

    def slot_servers(self, slot: str) -> dict[str, int]:
        """Return name and port of each of an embedded slot's servers, e.g. `stable` and `stable-2`."""
        first: int = getattr(self, f"{slot}_port")
        return {slot if n == 0 else f"{slot}-{n + 1}": first + PORT_STRIDE * n for n in range(self.servers)}

    def slot_sockets(self, slot: str) -> dict[str, Path]:
        """Return name and socket of each of an embedded slot's servers. The gateway uses sockets: they cost a sixth less."""
        return {name: socket_of(self.home, name) for name in self.slot_servers(slot)}

    def slot_urls(self, slot: str) -> list[str]:
        """Return the URLs of the slot's servers, or the one URL behind which all of them are."""
        if self.slots:
            return [self.slots.replace("{slot}", slot)]
        return [f"http://{self.host}:{port}" for port in self.slot_servers(slot).values()]

    @property
    def tables(self) -> Path:
        """Delta tables: `<model>/<table>`."""
        return self.home / "tables"

    def tables_of(self, model: str) -> Path | str:
        """Return where a model's Delta tables are: a folder, or a URI where storage is a bucket."""
        return f"{self.storage}/tables/{model}" if self.storage else self.tables / model

    @property
    def records(self) -> Path:
        """The records of what was done to each window: `<model>/landed/<window>.json`, `<model>/validated/<window>.json`."""
        return self.home / "records"

    @property
    def runs(self) -> Path:
        """Training runs: `<model>/<run>/` with dataset, results, verdicts."""
        return self.home / "runs"

    @property
    def ledger(self) -> Path:
        """Append-only decisions: `<model>/<kind>.jsonl`."""
        return self.home / "ledger"

    @property
    def predictions(self) -> Path:
        """The servers' prediction segments: `<model>/<slot>/*.jsonl`."""
        return self.home / "predictions"

    @property
    def reports(self) -> Path:
        """Pages for people: Data Docs, drift reports, model cards."""
        return self.home / "reports"

    @property
    def online_store(self) -> str:
        """The online store, in which servers look up aggregates of past rows: a folder with `<model>.db`, or Redis' URL."""
        return self.online or str(self.home / "online")

    @property
    def gateway(self) -> Path:
        """HAProxy's configuration, and a map with the split of each model."""
        return self.home / "gateway"

    @property
    def gateway_socket(self) -> Path:
        """The socket on which HAProxy takes changes."""
        return socket_of(self.home, "gateway")


def socket_of(home: Path, name: str) -> Path:
    """Return the path of a socket of this home's stack.

    It is not in the home, which may lie deeper than the 107 bytes that a socket's path can hold.
    """
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"perennial-{os.getuid()}-{digest}-{name}.sock"


def sockets_of(home: Path) -> list[Path]:
    """Return the sockets of this home's stack that exist."""
    return [*Path(tempfile.gettempdir()).glob(socket_of(home, "*").name)]


def inherited() -> dict[str, str]:
    """Return the environment as it is, for a child process to inherit and to see what a user set by hand."""
    return dict(os.environ)


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that the environment names, with the defaults of the others; an empty variable is none.

    Raises ValueError with one line for each variable that is wrong.
    """
    from pydantic import ValidationError

    values = {field.name: value for field in fields(Settings) if (value := environ.get(_variable(field.name)))}
    try:
        return _adapter().validate_python(values)
    except ValidationError as error:
        lines = [
            f"{_variable(str(e['loc'][0]))}={e['input']}: {e['msg'].removeprefix('Input ')}" for e in error.errors()
        ]
        raise ValueError("\n".join(lines)) from None


@cache
def _adapter() -> "TypeAdapter[Settings]":
    from pydantic import TypeAdapter  # here, because commands that need no settings start sooner

    return TypeAdapter(Settings)


def _variable(field: str) -> str:
    return f"PERENNIAL_{field.upper()}"
