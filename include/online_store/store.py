"""What an online store does, and which one a URL names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from include.domain.errors import UserMistake
from include.domain.features.online_features import LandedSums, Outcome


@dataclass(frozen=True)
class News:
    """What a reader has not seen: `landed` is None when no window landed since, else all windows, and then `outcomes` are
    all too. `mark` is where to read on from, `at` the moment (epoch seconds) of the last write, None before the first."""

    mark: tuple[int, int]
    landed: Sequence[LandedSums] | None
    outcomes: Sequence[Outcome]
    at: float | None


class OnlineStore(Protocol):
    """One model's store. Its methods may be called from several threads and processes. Each raises Unavailable."""

    def land(self, windows: Sequence[LandedSums], oldest: str) -> int:
        """Put these windows in place, but none older than `oldest`, and none over a newer version of itself; drop what is
        older than `oldest`. All at once; how many were put in place."""

    def add(self, outcomes: Sequence[Outcome]) -> int:
        """Outcomes that became known; one whose key was told before is left out. How many were new."""

    def changed(self) -> bool:
        """Whether it is known, without waiting for anybody, that something was written since the last `read`."""

    def read(self, since: tuple[int, int] | None) -> News: ...


def open_store(url: str, model: str) -> OnlineStore:
    """`redis://…`, or else the folder of the embedded one. Raises UserMistake for another scheme."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme == "file":
        from include.online_store.sqlite import SqliteStore

        return SqliteStore(Path(rest if mark else url) / f"{model}.db")
    if scheme in ("redis", "rediss", "unix"):
        from include.online_store.redis import RedisStore

        return RedisStore(url, model)
    raise UserMistake(f"{url}: an online store is a folder or redis://host:port/number")
