"""Tables, records and a source in memory: fakes of the ports for tests of the data stages."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.artifacts.window_records import R, WindowRecord, from_json
from include.domain.errors import Conflict, Unavailable, UserMistake
from include.domain.windows import Window
from include.ports.sources import Batch, SourceFile


class MemoryTables:
    def __init__(self) -> None:
        self._versions: dict[str, list[dict[str, pa.Table]]] = {}
        self._changed: dict[tuple[str, str], int] = {}
        self._added: set[tuple[str, str]] = set()

    def replace(self, table: str, content: Mapping[Window, pa.Table], run: str, *, read_at: int | None = None) -> int:
        versions, rows = self._versions.setdefault(table, []), {w.label: part for w, part in content.items()}
        for name in rows:
            if read_at is not None and self._changed.get((table, name), -1) > read_at:
                raise Conflict(f"window {name}: another run wrote there at the same time")
        placed = {name: _of_window(part, name) for name, part in rows.items()}
        versions.append({**(versions[-1] if versions else {}), **placed})
        self._changed |= {(table, name): len(versions) - 1 for name in rows}
        return len(versions) - 1

    def project(self, source: str, table: str, windows: Sequence[Window], columns: Sequence[str], run: str) -> int:
        content = {w: self.read(source, [w], columns=columns) for w in windows}
        return self.replace(table, content, run)

    def append(self, table: str, rows: pa.Table, run: str, once: str) -> bool:
        if (table, once) in self._added:
            return False
        self._added.add((table, once))
        versions = self._versions.setdefault(table, [])
        held = dict(versions[-1]) if versions else {}
        for name in pc.unique(rows["window"]).to_pylist():
            new = rows.filter(pc.equal(rows["window"], name))
            held[name] = pa.concat_tables([held[name], new], promote_options="permissive") if name in held else new
            self._changed[table, name] = len(versions)
        versions.append(held)
        return True

    def read(
        self,
        table: str,
        windows: Sequence[Window],
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        dictionary_columns: Sequence[str] = (),
    ) -> pa.Table:
        if table not in self._versions:
            raise UserMistake(f"{table}: there is no such table yet")
        held = self._versions[table][-1 if version is None else version]
        empty = next(iter(held.values())).slice(0, 0)
        wanted = {w.label for w in windows}
        rows = pa.concat_tables([empty, *(held[n] for n in sorted(held) if n in wanted)], promote_options="permissive")
        for name in dictionary_columns:
            rows = rows.set_column(rows.column_names.index(name), name, rows[name].dictionary_encode())
        return rows.select(list(columns)) if columns is not None else rows

    def pieces(self, table: str, window: Window) -> Iterator[pa.Table]:
        rows = self._versions[table][-1].get(window.label)
        if rows is not None and len(rows):
            yield rows

    def files(self, table: str, windows: Sequence[Window], *, version: int | None = None) -> list[str]:
        return []

    def windows(self, table: str) -> list[str]:
        held = self._versions[table][-1] if table in self._versions else {}
        return sorted(name for name, rows in held.items() if len(rows))

    def contents(self, table: str) -> dict[str, str]:
        return {name: str(self._changed[table, name]) for name in self.windows(table)}

    def version(self, table: str) -> int | None:
        return len(self._versions[table]) - 1 if table in self._versions else None


class MemoryRecords:
    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], str] = {}

    def write(self, name: str, record: WindowRecord) -> None:
        self._documents[record.kind, name] = json.dumps(record.to_json())

    def read(self, record_type: type[R], name: str) -> R | None:
        document = self._documents.get((record_type.kind, name))
        return None if document is None else from_json(json.loads(document), record_type)


class MemorySource:
    """Files of rows by name; a file named like a window (`2026-01-01`) is that window's own when `by_window`."""

    def __init__(self, files: dict[str, list[dict[str, Any]]], *, by_window: bool = False) -> None:
        self.held, self._by_window = files, by_window

    def files(self, windows: Sequence[Window]) -> list[SourceFile]:
        if not self._by_window:
            return [self._described(name, None) for name in sorted(self.held)]
        missing = [w.label for w in windows if w.label not in self.held]
        if missing:
            raise Unavailable(f"no source file for window {missing[0]}")
        return [self._described(w.label, w) for w in windows]

    def read(self, file: SourceFile, numbers: Collection[str] = ()) -> Iterator[Batch]:
        rows = self.held[file.name]
        yield Batch(file.name, np.arange(1, len(rows) + 1), pa.Table.from_pylist(rows))

    def _described(self, name: str, window: Window | None) -> SourceFile:
        return SourceFile(name, len(self.held[name]), str(hash(str(self.held[name]))), window)


def _of_window(rows: pa.Table, name: str) -> pa.Table:
    plain = rows.drop_columns(["window"]) if "window" in rows.column_names else rows
    return plain.append_column("window", pa.array([name] * len(rows), pa.string()))


def count(table: pa.Table, **equal: Any) -> int:
    for name, value in equal.items():
        table = table.filter(pc.equal(table[name], value))
    return len(table)
