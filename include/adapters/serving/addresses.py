"""The servers behind one name: a headless Service of a cluster resolves to each of its pods."""

import socket
from urllib.parse import urlsplit

from include.domain.errors import Unavailable


def each(url: str, model: str) -> list[str]:
    """The URL with each address that its host stands for; `{model}` in it is the model's name as Kubernetes takes it.

    Raises Unavailable where the name is not known, as a Service's without pods is not.
    """
    parts = urlsplit(url.replace("{model}", model.replace("_", "-")))
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as fault:
        raise Unavailable(f"{parts.hostname}: no server has this name ({fault.strerror})") from None
    return sorted({f"{parts.scheme}://{address[0]}:{parts.port}" for *_, address in found})
