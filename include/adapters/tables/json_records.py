"""Records as JSON files in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from include.artifacts.files import write_atomically
from include.domain.errors import Corrupt


class JsonRecords:
    """`folder` holds one model's: `<kind>/<name>.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        write_atomically(self._path(kind, name), json.dumps(facts, indent=1, sort_keys=True))

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        path = self._path(kind, name)
        try:
            return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except ValueError as fault:
            raise Corrupt(f"{path}: not JSON ({fault}); remove it and run the stage again") from None

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / f"{name}.json"
