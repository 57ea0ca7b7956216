"""Where this installation keeps things and listens: the only reader of the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """Each field is read from `PERENNIAL_<NAME>`; the embedded stack's `make up` sets those that are not defaults."""

    home: Path = ROOT / ".perennial"
    models: Path = ROOT / "include" / "models"  #: the folder of the specs
    host: str = "127.0.0.1"
    model: str = "flights"  #: the model that the embedded slots serve
    airflow_port: int = 8080
    mlflow_port: int = 5000
    gateway_port: int = 8088
    gateway_admin_port: int = 8089
    stable_port: int = 9001
    canary_port: int = 9002

    @property
    def airflow_url(self) -> str:
        return f"http://{self.host}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def gateway_admin_url(self) -> str:
        return f"http://{self.host}:{self.gateway_admin_port}"

    def slot_url(self, slot: str) -> str:
        return f"http://{self.host}:{getattr(self, f'{slot}_port')}"

    @property
    def tables(self) -> Path:
        """Delta tables: `<model>/<table>`."""
        return self.home / "tables"

    @property
    def records(self) -> Path:
        """What was done to each window: `<model>/landed/<window>.json`, `<model>/validated/<window>.json`."""
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
    def gateway(self) -> Path:
        """Traefik's static file and, under `dynamic/`, the files it watches."""
        return self.home / "gateway"


def inherited() -> dict[str, str]:
    """The environment as it is, for a child process to inherit and for asking what a user set by hand."""
    return dict(os.environ)


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises ValueError naming a port that is not a number."""
    given: dict[str, Path | str | int] = {}
    for name, kind in (("home", Path), ("models", Path), ("host", str), ("model", str)):
        if value := environ.get(f"PERENNIAL_{name.upper()}"):
            given[name] = kind(value)
    for name in (n for n in Settings.__dataclass_fields__ if n.endswith("_port")):
        if value := environ.get(f"PERENNIAL_{name.upper()}"):
            if not value.isdigit():
                raise ValueError(f"PERENNIAL_{name.upper()}={value}: a port is a number")
            given[name] = int(value)
    return Settings(**given)  # type: ignore[arg-type]
