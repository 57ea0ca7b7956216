"""A small Kubernetes API over HTTP, for contract tests without a cluster: what the adapters use of the real one.

Objects by path, list by labels, create, delete, merge patch, server-side apply with one owner a field, the parts `scale`
and `status`, and a generation that counts changes of `spec`. Every call is kept as the verb and resource that a Role
would have to allow.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

PLACE = re.compile(
    r"^/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[^/]+))?$"
)
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
Object = dict[str, Any]


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class FakeKubernetes:
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    calls: set[tuple[str, str, str]] = field(default_factory=set)  #: API group, resource, verb
    owners: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)  #: who set a field last
    logs: dict[str, str] = field(default_factory=dict)  #: what a pod said, by its name
    pages: Mapping[str, Object] = field(default_factory=dict)  #: answers at paths outside the namespaces
    finalizers: set[str] = field(default_factory=set)  #: names of objects that a delete leaves there
    changed: Callable[[str, Object], None] = lambda plural, thing: None  #: a controller, called after each change

    def put(self, plural: str, thing: Object) -> None:
        """As `kubectl apply` of somebody else would."""
        self._store(plural, thing["metadata"]["name"], thing, owner="somebody else")

    def answer(self, method: str, url: str, kind: str, body: Any) -> Object | str:
        parts = urlsplit(url)
        if parts.path in self.pages:
            return self.pages[parts.path]
        place = PLACE.match(parts.path)
        if place is None:
            raise Refused(404, "NotFound", f"the server could not find the requested resource {parts.path}")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        plural, name, part = place["plural"], place["name"], place["part"]
        verb = VERBS[method] if name or method != "GET" else "watch" if query.get("watch") else "list"
        self.calls.add((place["group"] or "", f"{plural}/{part}" if part else plural, verb))
        if verb == "watch":  # what is there, once
            return {"type": "ADDED", "object": next(self._listed(plural, ""))}
        if verb == "list":
            return {"items": list(self._listed(plural, query.get("labelSelector", "")))}
        if verb == "create":
            return self._created(plural, body)
        key = (plural, name)
        if key not in self.objects and not (verb == "patch" and "apply-patch" in kind):
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        if verb == "delete":
            return self.objects[key] if name in self.finalizers else self.objects.pop(key)
        if verb == "patch":
            self._patched(key, kind, body, query)
        return self._view(key, part)

    def _view(self, key: tuple[str, str], part: str | None) -> Object | str:
        if part == "log":
            return self.logs.get(key[1], "")
        return self._scale(key) if part == "scale" else self.objects[key]

    def _listed(self, plural: str, selector: str) -> Iterator[Object]:
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        for (kind, _), thing in list(self.objects.items()):
            if kind == plural and wanted.items() <= thing["metadata"].get("labels", {}).items():
                yield thing

    def _created(self, plural: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if (plural, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        return self._store(plural, name, body, owner="creator")

    def _patched(self, key: tuple[str, str], kind: str, body: Object, query: Mapping[str, str]) -> None:
        manager, owned = query.get("fieldManager", "nobody"), self.owners.setdefault(key, {})
        if "apply-patch" in kind:
            fields = set(_leaves({"spec": body.get("spec", {})}))
            conflicts = {f: owned[f] for f in fields if owned.get(f, manager) != manager}
            if conflicts and query.get("force") != "true":
                raise Refused(409, "Conflict", f"Apply failed with {len(conflicts)} conflicts: {conflicts}")
        self._store(*key, body, owner=manager)

    def _store(self, plural: str, name: str, change: Object, owner: str) -> Object:
        key = (plural, name)
        before = self.objects.get(key, {"metadata": {"name": name, "generation": 0}})
        after: Object = _merged(before, change)
        after["metadata"]["generation"] = before["metadata"].get("generation", 0) + (
            before.get("spec") != after.get("spec")
        )
        self.objects[key] = after
        self.owners.setdefault(key, {}).update(dict.fromkeys(_leaves({"spec": change.get("spec", {})}), owner))
        self.changed(plural, after)
        return after

    def _scale(self, key: tuple[str, str]) -> Object:
        return {"kind": "Scale", "spec": {"replicas": self.objects[key]["spec"].get("replicas", 1)}}


def _merged(old: Any, new: Any) -> Any:
    """RFC 7386: None removes, lists are replaced whole."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    unchanged = {name: value for name, value in old.items() if new.get(name, value) is not None}
    return unchanged | {name: _merged(old.get(name, {}), value) for name, value in new.items() if value is not None}


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    else:
        yield path


@contextmanager
def serving(fake: FakeKubernetes, kubeconfig: Path) -> Iterator[None]:
    """The fake on a port of this machine, and the kubeconfig that leads there."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            try:
                status = 201 if self.command == "POST" else 200
                answer = fake.answer(self.command, self.path, self.headers.get("Content-Type", ""), body)
            except Refused as refused:
                status = refused.status
                answer = {"kind": "Status", "code": status, "reason": refused.reason, "message": str(refused)}
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class's names

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "fake", "context": {"cluster": "fake", "user": "fake"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "fake", "user": {}}],
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
