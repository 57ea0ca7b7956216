"""The Procfile's processes under supervisord: start them, ask after them, and leave none behind."""

import os
import re
import signal
import subprocess
import sys
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from include.domain.errors import UserMistake
from include.settings import socket_of, sockets_of

#: Every process of the stack carries this variable with the stack's home, so that `down` finds orphans too.
MARK = "PERENNIAL_STACK"

SUPERVISOR = """\
[supervisord]
pidfile={home}/supervisord.pid
logfile={home}/logs/supervisord.log
childlogdir={home}/logs
[unix_http_server]
file={socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """\
[program:{name}]
command=/bin/sh -c 'exec {command}'
directory={root}
redirect_stderr=true
stdout_logfile={home}/logs/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
startsecs=3
startretries=10
stopasgroup=true
killasgroup=true
stopwaitsecs=15
"""


@dataclass(frozen=True)
class ProcessStatus:
    """One process of the Procfile: its supervisord state, and the memory of it and its children in bytes."""

    name: str
    state: str
    description: str
    memory: int


def parse_procfile(text: str) -> dict[str, str]:
    """Return the commands by name, in the file's order."""
    return dict(re.findall(r"^([a-z][a-z0-9-]*):\s*(.+)$", text, flags=re.MULTILINE))


def start(home: Path, root: Path, programs: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Start supervisord, which starts the programs (commands by name). Raises UserMistake with its words when it cannot."""
    variables = {"home": home, "root": root, "socket": socket_of(home, "manager")}
    config = home / "supervisord.conf"
    (home / "logs").mkdir(parents=True, exist_ok=True)
    config.write_text(
        SUPERVISOR.format(**variables)
        + "".join(
            PROGRAM.format(name=name, command=command.replace("%", "%%"), **variables)
            for name, command in programs.items()
        )
    )
    socket_of(home, "manager").unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        env={**environment, MARK: str(home)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise UserMistake(f"the process manager did not start: {(result.stderr or result.stdout).strip()}")


def running(home: Path) -> list[ProcessStatus]:
    """Return the status of each process; empty when supervisord does not run."""
    try:
        with _supervisor(home) as manager:
            rows = cast(list[dict[str, Any]], manager.supervisor.getAllProcessInfo())
    except (OSError, xmlrpc.client.Error):
        return []
    return [
        ProcessStatus(str(r["name"]), str(r["statename"]), str(r["description"]), memory(int(str(r["pid"]))))
        for r in rows
    ]


def stop(home: Path) -> int:
    """Stop supervisord and its children in order, then whatever still carries the mark; return how many had to be swept."""
    manager = _manager(home)
    if manager:
        manager.terminate()
        psutil.wait_procs([manager], timeout=40)
    leftovers = marked(home)
    for process in leftovers:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(leftovers, timeout=10)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=5)
    for path in (*sockets_of(home), home / "supervisord.pid"):
        path.unlink(missing_ok=True)
    return len(leftovers)


def marked(home: Path) -> list[psutil.Process]:
    """Return every live process that the stack of this home started, orphans included, without this one and its parents."""
    mine = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in mine and _environment(p).get(MARK) == str(home)]


def memory(pid: int) -> int:
    """Return the bytes that the process and its children hold for themselves (unique set size)."""
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(map(_own_memory, tree))


def _manager(home: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int((home / "supervisord.pid").read_text()))
    except (OSError, ValueError, psutil.Error):
        return None
    return process if _environment(process).get(MARK) == str(home) else None


def _own_memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:  # a child that ended meanwhile
        return 0


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _supervisor(home: Path) -> xmlrpc.client.ServerProxy:
    transport = SupervisorTransport(None, None, f"unix://{socket_of(home, 'manager')}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
