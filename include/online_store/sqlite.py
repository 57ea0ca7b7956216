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
from include.domain.features.online_features import LandedSums, Outcome
from include.online_store.coding import decode, encode
from include.online_store.store import News

SCHEMA = """
CREATE TABLE landed (window TEXT PRIMARY KEY, version INTEGER, until INTEGER, packed BLOB);
CREATE TABLE outcomes (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, window TEXT, said TEXT);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), landings INTEGER, at REAL);
INSERT INTO state VALUES (1, 0, NULL);
"""
#: Seconds to wait for another writer.
PATIENCE = 10.0


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self._path, self._own = path, threading.local()

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        with self._writing() as db:
            there = dict(db.execute("SELECT window, version FROM landed"))
            new = [w for w in windows if w.window >= oldest and w.version > there.get(w.window, -1)]
            rows = [(w.window, w.version, w.until, w.packed) for w in new]
            db.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?, ?, ?)", rows)
            for table in ("landed", "outcomes"):
                db.execute(f"DELETE FROM {table} WHERE window < ?", (oldest,))
            if new:
                db.execute("UPDATE state SET landings = landings + 1, at = ?", (time.time(),))
        return len(new)

    def add(self, outcomes: Sequence[Outcome]) -> int:
        rows = [(o.key, o.window, encode(o)) for o in outcomes]
        with self._writing() as db:
            before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO outcomes (key, window, said) VALUES (?, ?, ?)", rows)
            new = db.total_changes - before
            if new:
                db.execute("UPDATE state SET at = ?", (time.time(),))
        return new

    def changed(self) -> bool:
        """By a look at shared memory, some microseconds; each thread has read for itself."""
        return self._version() != getattr(self._own, "seen", None)

    def read(self, since: tuple[int, int] | None) -> News:
        seen = self._version()
        with self._transaction("BEGIN") as db:
            landings, at = db.execute("SELECT landings, at FROM state").fetchone()
            again = since is None or since[0] != landings
            landed = [LandedSums(*row) for row in db.execute("SELECT * FROM landed")] if again else None
            after = 0 if again or since is None else since[1]
            rows = db.execute("SELECT number, said FROM outcomes WHERE number > ? ORDER BY number", (after,)).fetchall()
        self._own.seen = seen
        return News((landings, rows[-1][0] if rows else after), landed, [decode(said) for _, said in rows], at)

    def _version(self) -> int:
        """Changes when another connection has written (sqlite.org/pragma.html#pragma_data_version)."""
        try:
            return int(self._connection().execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as fault:
            raise Unavailable(f"{self._path}: {fault}") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
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
        except (sqlite3.Error, OSError) as fault:
            raise Unavailable(f"{self._path}: {fault}") from None

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        db: sqlite3.Connection | None = getattr(self._own, "db", None)
        if db is None:
            try:
                if not self._path.exists():
                    self._create()
            except OSError as fault:
                raise Unavailable(f"{self._path}: {fault.strerror}") from None
            db = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)
            db.execute("PRAGMA synchronous = NORMAL")
            self._own.db = db
        return db

    def _create(self) -> None:
        """The file appears whole: who changes an empty one to WAL beside another is refused without a wait."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._path.parent) as folder:
            draft = Path(folder) / self._path.name
            with closing(sqlite3.connect(draft)) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(SCHEMA)
            with suppress(FileExistsError):
                os.link(draft, self._path)
