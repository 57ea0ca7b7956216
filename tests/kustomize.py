"""The part of kustomize that the manifests use, so that they are rendered and checked where there is no kubectl:
resources, components, and strategic merge patches by target or by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
#: By which field the items of a list are told apart when lists are merged.
KEYS = {"containers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}


def render(folder: Path) -> list[Object]:
    """All objects of a kustomization, patched."""
    asked = _load(folder / "kustomization.yaml")
    unknown = set(asked) - {"apiVersion", "kind", "resources", "components", "patches"}
    assert not unknown, f"{folder}: {unknown} is not known here"
    found = [
        thing for name in asked.get("resources", []) + asked.get("components", []) for thing in _objects(folder / name)
    ]
    for patch in asked.get("patches", []):
        found = [_patched(thing, patch, _load(folder / patch["path"])) for thing in found]
    return found


def _objects(path: Path) -> Iterator[Object]:
    if path.is_dir():
        yield from render(path)
    else:
        yield from yaml.safe_load_all(path.read_text())


def _patched(thing: Object, patch: Object, change: Object) -> Object:
    if "target" in patch:
        return merged(thing, change, named=True) if thing["kind"] == patch["target"]["kind"] else thing
    return merged(thing, change) if _identity(thing) == _identity(change) else thing


def merged(old: Any, new: Any, key: str = "", *, named: bool = False) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        own = {name: value for name, value in new.items() if not (named and name == "metadata")}
        return old | {name: merged(old[name], value, name) if name in old else value for name, value in own.items()}
    if isinstance(old, list) and key in KEYS:
        by = {item[KEYS[key]]: item for item in old}
        return list((by | {i[KEYS[key]]: merged(by.get(i[KEYS[key]], {}), i) for i in new}).values())
    return new


def _identity(thing: Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
