"""The factory of online stores: a URL chooses the implementation, which is imported only if it is chosen."""

from pathlib import Path

from include.domain.errors import UserMistake
from include.online_store.protocol import OnlineStore


def open_store(url: str, model: str) -> OnlineStore:
    """Return the model's store in Redis for `redis://…`, or the embedded one in the folder that `url` names.

    Raises UserMistake for any other scheme.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme == "file":
        from include.online_store.sqlite import SqliteStore

        return SqliteStore(Path(path if separator else url) / f"{model}.db")
    if scheme in ("redis", "rediss", "unix"):
        from include.online_store.redis import RedisStore

        return RedisStore(url, model)
    raise UserMistake(f"{url}: an online store is a folder or redis://host:port/number")
