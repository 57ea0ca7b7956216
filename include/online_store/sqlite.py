"""The embedded online store: one SQLite file a model, in WAL mode, so that readers never wait for a writer."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from include.domain.errors import Unavailable
from include.domain.features.online_features import EventOutcome, LandedSums
from include.online_store.protocol import StoreChanges, decode_outcome, encode_outcome

SCHEMA = """
CREATE TABLE landed (window TEXT PRIMARY KEY, version INTEGER, until INTEGER, packed BLOB);
CREATE TABLE outcomes (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, window TEXT, said TEXT);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), landings INTEGER, at REAL);
INSERT INTO state VALUES (1, 0, NULL);
"""
#: Seconds to wait for another writer.
BUSY_TIMEOUT = 10.0


class SqliteStore:
    """An OnlineStore in the file at `path`, which is created by the first call; each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path, self._thread = path, threading.local()

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        """Replace windows and delete old ones; see OnlineStore."""
        with self._write_transaction() as db:
            versions = dict(db.execute("SELECT window, version FROM landed"))
            newer = [w for w in windows if w.window >= oldest and w.version > versions.get(w.window, -1)]
            rows = [(w.window, w.version, w.known_until, w.packed) for w in newer]
            db.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?, ?, ?)", rows)
            for table in ("landed", "outcomes"):
                db.execute(f"DELETE FROM {table} WHERE window < ?", (oldest,))
            if newer:
                db.execute("UPDATE state SET landings = landings + 1, at = ?", (time.time(),))
        return len(newer)

    def add(self, outcomes: Sequence[EventOutcome]) -> int:
        """Append new outcomes; see OnlineStore."""
        rows = [(o.key, o.window, encode_outcome(o)) for o in outcomes]
        with self._write_transaction() as db:
            changes_before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO outcomes (key, window, said) VALUES (?, ?, ?)", rows)
            inserted = db.total_changes - changes_before
            if inserted:
                db.execute("UPDATE state SET at = ?", (time.time(),))
        return inserted

    def has_changed(self) -> bool:
        """Return whether SQLite's version number in shared memory, read in some microseconds, is not that of the last read."""
        return self._data_version() != getattr(self._thread, "data_version", None)

    def read(self, cursor: tuple[int, int] | None) -> StoreChanges:
        """Return what was written after `cursor`, which holds the number of landings and of the last outcome; see OnlineStore."""
        data_version = self._data_version()
        with self._transaction("BEGIN") as db:
            landings, written_at = db.execute("SELECT landings, at FROM state").fetchone()
            from_start = cursor is None or cursor[0] != landings
            landed = [LandedSums(*row) for row in db.execute("SELECT * FROM landed")] if from_start else None
            last = 0 if from_start or cursor is None else cursor[1]
            rows = db.execute("SELECT number, said FROM outcomes WHERE number > ? ORDER BY number", (last,)).fetchall()
        self._thread.data_version = data_version
        outcomes = [decode_outcome(text) for _, text in rows]
        return StoreChanges((landings, rows[-1][0] if rows else last), landed, outcomes, written_at)

    def _data_version(self) -> int:
        """Return a number that changes when another connection has written (sqlite.org/pragma.html#pragma_data_version)."""
        try:
            return int(self._connection().execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise Unavailable(f"{self._path}: {error}") from None

    @contextmanager
    def _write_transaction(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            db = self._connection()
            db.execute(begin)
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"{self._path}: {error}") from None

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection, opened by its first call."""
        db: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if db is None:
            try:
                if not self._path.exists():
                    self._create()
            except OSError as error:
                raise Unavailable(f"{self._path}: {error.strerror}") from None
            db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
            db.execute("PRAGMA synchronous = NORMAL")
            self._thread.connection = db
        return db

    def _create(self) -> None:
        """Make the file elsewhere and link it into place.

        SQLite does not wait for a lock when two processes change the same new file to WAL mode; it refuses one of them.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._path.parent) as folder:
            draft = Path(folder) / self._path.name
            with closing(sqlite3.connect(draft)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(SCHEMA)
            with suppress(FileExistsError):
                os.link(draft, self._path)
