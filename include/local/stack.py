"""Up and down: check the machine, lay the home out, choose ports, start, wait until all is healthy."""

import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import httpx

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Unavailable, UserMistake
from include.local import processes
from include.local.cpu_affinity import pinned
from include.local.rest import Airflow
from include.settings import ROOT, SLOTS, Settings, inherited
from include.wiring import Parts

NEEDED_BYTES = 4 << 30
PORTS = [f.name for f in fields(Settings) if f.name.endswith("_port")]
REMEMBERED = [*PORTS, "servers", "model"]  #: of the settings that a stack was started with
BIN = Path(sys.executable).parent


def check_machine(home: Path) -> None:
    """Raise UserMistake, in one line, for a folder that cannot be written or a full disk."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)  # it holds the keys and passwords of the stack
        (home / ".probe").write_text("")
        (home / ".probe").unlink()
    except OSError as error:
        raise UserMistake(
            f"{home} cannot be written ({error.strerror}); set PERENNIAL_HOME to a folder of yours"
        ) from None
    if (free := shutil.disk_usage(home).free) < NEEDED_BYTES:
        raise UserMistake(
            f"{home} has {free / 2**30:.1f} GB free and 4 GB are needed; set PERENNIAL_HOME to a larger disk"
        )


def choose_ports(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return the settings with free ports. Raises UserMistake for a taken one that a variable names; others give way."""
    chosen: set[int] = set()
    for name in PORTS:
        variable = f"PERENNIAL_{name.upper()}"
        while busy := [port for port in _ports(settings, name) if port in chosen or not _free(settings.host, port)]:
            if variable in environ:
                raise UserMistake(f"port {busy[0]} is in use; set {variable} to a free one or stop what listens there")
            settings = replace(settings, **{name: getattr(settings, name) + 1})
        chosen.update(_ports(settings, name))
    return settings


def _ports(settings: Settings, name: str) -> Collection[int]:
    """Return the ports that a setting stands for: those of all servers of a slot, or its own."""
    slot = name.removesuffix("_port")
    return settings.slot_servers(slot).values() if slot in SLOTS else (getattr(settings, name),)


def programs(settings: Settings) -> dict[str, str]:
    """Return the command of each process by its name: the Procfile's, and the other servers of its slots."""
    commands = {}
    for name, command in processes.parse_procfile((ROOT / "Procfile").read_text()).items():
        commands[name] = command
        for server, port in settings.slot_servers(name).items() if name in SLOTS else ():
            own = command.replace(f"$PERENNIAL_{name.upper()}_PORT", str(port))
            commands[server] = own.replace(
                f"$PERENNIAL_{name.upper()}_SOCKET", str(settings.slot_sockets(name)[server])
            )
    serving = {"gateway", *(server for slot in SLOTS for server in settings.slot_servers(slot))}
    return {
        n: " ".join([*pinned(settings, n), command]) if n in serving else command for n, command in commands.items()
    }


def remembered(settings: Settings) -> Settings:
    """Return the settings that the running stack was started with; the same ones where none runs."""
    path = settings.home / "stack.json"
    return replace(settings, **json.loads(path.read_text())) if path.exists() else settings


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the Procfile's processes; secrets are made once and kept beside the database."""
    home, keys = settings.home, _secrets(settings.home / "secrets.json")
    # Every task is a new process: without compiled files each would compile its imports again.
    inherited_variables = {name: value for name, value in inherited().items() if name != "PYTHONDONTWRITEBYTECODE"}
    own = {f"PERENNIAL_{name.upper()}": str(value) for name, value in asdict(settings).items()}
    return {
        **inherited_variables,
        **own,
        "PERENNIAL_ONLINE": settings.online_store,
        "HAPROXY": Parts(settings).gateway_program(),
        "PATH": f"{BIN}{os.pathsep}{inherited().get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # a process that renames itself must keep its environment, by which `down` knows it
        "OMP_WAIT_POLICY": "PASSIVE",  # two cores are shared by a dozen processes: a thread that waits must not spin
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "plugins.executor.Executor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "airflow" / "passwords.json"),
        "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(home)}?timeout=30",
        "AIRFLOW__API__BASE_URL": settings.airflow_url,
        "AIRFLOW__API__SECRET_KEY": keys["session"],
        "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        # Seconds until a task whose worker, or whose scheduler, was killed is taken up again; five minutes each by default.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "100",
    }


def up(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Start a stack if none runs here, wait until it is healthy and return the settings with its ports.

    `say` is called with each step. Raises UserMistake or Unavailable.
    """
    if processes.running(settings.home):
        return remembered(settings)
    check_machine(settings.home)
    processes.stop(settings.home)
    settings = choose_ports(settings, inherited())
    variables = environment(settings)
    for folder in ("airflow", "mlflow", "logs", "predictions"):
        (settings.home / folder).mkdir(exist_ok=True)
    passwords = settings.home / "airflow" / "passwords.json"
    if not passwords.exists():
        _write_private(passwords, json.dumps({"admin": secrets.token_urlsafe(9)}))
    say("preparing Airflow's database")
    _run([str(BIN / "airflow"), "db", "migrate"], variables, settings.home / "logs" / "migrate.log")
    _share(database(settings.home))
    Parts(settings).lay_out_gateway()
    started_with = {name: getattr(settings, name) for name in REMEMBERED}
    write_atomically(settings.home / "stack.json", json.dumps(started_with))
    started = programs(settings)
    say("starting " + ", ".join(started))
    processes.start(settings.home, ROOT, started, variables)
    wait_healthy(settings)
    with Airflow(settings.airflow_url, password(settings)) as airflow:
        airflow.apply(ROOT / "airflow_settings.yaml")
    return settings


def password(settings: Settings) -> str:
    """Return the admin's password, which the first start made."""
    return str(json.loads((settings.home / "airflow" / "passwords.json").read_text())["admin"])


def database(home: Path) -> Path:
    """Return the path of Airflow's database in the embedded stack."""
    return home / "airflow" / "airflow.db"


def _share(path: Path) -> None:
    """Let readers read while one writes: five processes share the file, and a backfill needs a quiet moment otherwise."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def down(settings: Settings) -> int:
    """Stop everything of this stack, even when its manager was killed; return how many processes were orphans."""
    swept = processes.stop(settings.home)
    (settings.home / "stack.json").unlink(missing_ok=True)
    return swept


def health(settings: Settings) -> dict[str, str]:
    """Return for each process `healthy`, or why it is not."""
    airflow = _json(f"{settings.airflow_url}/api/v2/monitor/health")
    parts = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
    states = {"api-server": "healthy" if airflow else "does not answer yet"}
    for process, part in parts.items():
        states[process] = str((airflow.get(part) or {}).get("status") or "no heartbeat yet")
    states["mlflow"] = "healthy" if _answers(f"{settings.mlflow_url}/health") else "does not answer yet"
    states["gateway"] = "healthy" if _answers(f"{settings.gateway_admin_url}/ping") else "does not answer yet"
    for slot in SLOTS:
        for name, port in settings.slot_servers(slot).items():
            states[name] = _serving(_json(f"http://{settings.host}:{port}/status"))
    return states


def _serving(status: Mapping[str, Any]) -> str:
    """Return a model server's health by its `/status`."""
    if not status or status.get("ready"):
        return "healthy" if status else "does not answer yet"
    return f"healthy ({status.get('reason') or 'no version yet'})"


def wait_healthy(settings: Settings, timeout: float = 180) -> None:
    """Return once every part is healthy. Raises Unavailable naming the parts that are not and where their logs are."""
    deadline = time.monotonic() + timeout
    while unhealthy := {n: s for n, s in health(settings).items() if not s.startswith("healthy")}:
        dead = [r.name for r in processes.running(settings.home) if r.state == "FATAL"]
        if dead or time.monotonic() > deadline:
            reasons = ", ".join(f"{name}: {state}" for name, state in unhealthy.items())
            raise Unavailable(f"the stack is not healthy ({reasons}); see {settings.home / 'logs'}/<name>.log")
        time.sleep(0.3)


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _secrets(path: Path) -> dict[str, str]:
    if not path.exists():
        keys = {"fernet": _fernet_key(), "session": secrets.token_hex(32), "jwt": secrets.token_hex(64)}
        _write_private(path, json.dumps(keys))
    return dict(json.loads(path.read_text()))


def _fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _run(command: list[str], variables: Mapping[str, str], log: Path) -> None:
    with log.open("w") as out:
        if subprocess.run(command, env=variables, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
            raise Unavailable(f"`{' '.join(command[-2:])}` failed; see {log}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _json(url: str) -> dict[str, dict[str, str]]:
    try:
        answer = httpx.get(url, timeout=2)
        return dict(answer.json()) if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}
