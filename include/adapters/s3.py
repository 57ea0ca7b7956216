"""S3 as clients are told of it, by the environment or by the same names given: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.settings import inherited

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: What a server answers, as pyarrow (ACCESS_DENIED) and delta-rs (AccessDenied) repeat it, in small letters.
REFUSALS = ("accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch", "expiredtoken", "invalidtoken")
NO_BUCKET = "nosuchbucket"


def file_system(uri: str, given: Mapping[str, str]) -> "FileSystem":
    """The URI's file system, as given and for the rest as the environment says. Raises OSError where no server answers."""
    from pyarrow.fs import FileSystem, S3FileSystem

    if not given:
        scheme, _, rest = uri.partition("://")
        return FileSystem.from_uri(f"{scheme}://{rest.partition('/')[0]}/")[0]
    return S3FileSystem(
        access_key=given.get("AWS_ACCESS_KEY_ID"), secret_key=given.get("AWS_SECRET_ACCESS_KEY"),
        session_token=given.get("AWS_SESSION_TOKEN"), region=given.get("AWS_REGION"),
        endpoint_override=given.get("AWS_ENDPOINT_URL", inherited().get("AWS_ENDPOINT_URL")),
    )  # fmt: skip


def is_server(fault: Exception) -> bool:
    """Whether pyarrow's fault is the server's or the network's, and not the file's."""
    return "AWS Error" in str(fault)


def told(place: str, fault: Exception) -> PerennialError:
    """A file system's fault in one line: a mistake where the server refuses, worth another try otherwise."""
    text = " ".join(str(fault).split())
    small = text.replace("_", "").lower()
    if any(sign in small for sign in REFUSALS):
        return UserMistake(
            f"{place}: S3 refuses the credentials; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the connection"
        )
    if NO_BUCKET in small:
        return UserMistake(f"{place}: there is no such bucket; create it, or correct its name or AWS_ENDPOINT_URL")
    return Unavailable(f"{place}: {text[:300]}")
