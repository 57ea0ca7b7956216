"""Records of windows as JSON files: `<folder>/<kind>/<name>.json`."""

import json
from pathlib import Path

from include.artifacts.atomic_write import write_atomically
from include.artifacts.window_records import R, WindowRecord, from_json
from include.domain.errors import Corrupt


class JsonRecords:
    """Implements `ports.tables.Records` in a folder that holds one model's records."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, record: WindowRecord) -> None:
        """Write the record atomically in the place of an older one of that class and name."""
        write_atomically(self._path(type(record), name), json.dumps(record.to_json(), indent=1, sort_keys=True))

    def read(self, record_type: type[R], name: str) -> R | None:
        """Return the record of that class and name; None when there is none. Raises Corrupt for one that is no such record."""
        path = self._path(record_type, name)
        try:
            return from_json(json.loads(path.read_text(encoding="utf-8")), record_type)
        except FileNotFoundError:
            return None
        except ValueError as error:  # of JSON, or of a field
            raise Corrupt(f"{path}: not a record ({error}); remove it and run the stage again") from None

    def _path(self, record_type: type[WindowRecord], name: str) -> Path:
        return self._folder / record_type.kind / f"{name}.json"
