"""The servers behind one name: a headless Service of a cluster resolves to each of its pods."""

import socket
from urllib.parse import urlsplit

from include.domain.errors import Unavailable


def resolve(url: str, model: str) -> list[str]:
    """Return the URL once for each address of its host; `{model}` in it is replaced by the model's name in Kubernetes.

    Raises Unavailable where nothing has that name, as when a Service has no pods.
    """
    parts = urlsplit(url.replace("{model}", model.replace("_", "-")))
    try:
        infos = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unavailable(f"{parts.hostname}: no server has this name ({error.strerror})") from None
    return sorted({f"{parts.scheme}://{address[0]}:{parts.port}" for *_, address in infos})
