"""How clients reach S3, and what their errors mean.

The keys and the server's address come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), or from a mapping
of the same names, as a connection of Airflow gives it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.settings import inherited

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem
    from types_boto3_s3 import S3Client

#: What a server answers, as pyarrow (ACCESS_DENIED), delta-rs and boto3 (AccessDenied) repeat it, in small letters.
REFUSALS = ("accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch", "expiredtoken", "invalidtoken")
NO_BUCKET = "nosuchbucket"
#: boto3 found neither keys nor a role.
NO_CREDENTIALS = "unable to locate credentials"
#: Seconds to wait for a connection, and how often one request is tried.
CONNECT_SECONDS, ATTEMPTS = 5, 3


def file_system(uri: str, connection: Mapping[str, str]) -> "FileSystem":
    """Return the file system of the URI; what the connection does not name comes from the environment.

    Raises OSError where no server answers.
    """
    from pyarrow.fs import FileSystem, S3FileSystem

    if not connection:
        scheme, _, rest = uri.partition("://")
        return FileSystem.from_uri(f"{scheme}://{rest.partition('/')[0]}/")[0]
    return S3FileSystem(
        access_key=connection.get("AWS_ACCESS_KEY_ID"),
        secret_key=connection.get("AWS_SECRET_ACCESS_KEY"),
        session_token=connection.get("AWS_SESSION_TOKEN"),
        region=connection.get("AWS_REGION"),
        endpoint_override=connection.get("AWS_ENDPOINT_URL", inherited().get("AWS_ENDPOINT_URL")),
    )


def client() -> "S3Client":
    """Return boto3's client of the S3 that the environment names.

    A server of one's own is asked by paths, as pyarrow and delta-rs ask it, because its buckets have no names of their own.
    """
    import boto3
    from botocore.config import Config

    environment = inherited()
    endpoint = environment.get("AWS_ENDPOINT_URL")
    config = Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_SECONDS,
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.Session().client("s3", endpoint_url=endpoint, region_name=environment.get("AWS_REGION"), config=config)


def is_server_error(error: Exception) -> bool:
    """Return whether an error of pyarrow comes from the server or the network, and not from the file."""
    return "AWS Error" in str(error)


def plain_error(place: str, error: Exception) -> PerennialError:
    """Return a client's error as one line of ours: UserMistake where the server refuses, Unavailable for all else."""
    text = " ".join(str(error).split())
    lowered = text.replace("_", "").lower()
    if NO_CREDENTIALS in lowered or any(sign in lowered for sign in REFUSALS):
        return UserMistake(
            f"{place}: S3 refuses the credentials; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the connection"
        )
    if NO_BUCKET in lowered:
        return UserMistake(f"{place}: there is no such bucket; create it, or correct its name or AWS_ENDPOINT_URL")
    return Unavailable(f"{place}: {text[:300]}")
