"""A real S3 server on a port of its own: SeaweedFS."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from pyarrow.fs import S3FileSystem

from tests.gateway import free_port

WEED = Path(sys.executable).parent / "weed"


@contextmanager
def bucket(folder: Path, name: str = "perennial") -> Iterator[str]:
    """The bucket's URI; the environment leads S3 clients there meanwhile."""
    ports = {key: free_port() for key in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc = {f"{key}.grpc": free_port() for key in ports}
    flags = [f"-{key}={value}" for key, value in {**ports, **grpc}.items()]
    command = [
        str(WEED),
        "server",
        "-filer",
        "-s3",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.electionTimeout=1s",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        *flags,
    ]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {key: os.environ.get(key) for key in variables}
    server_env = {**os.environ, **variables}  # the server takes these keys for its own
    with subprocess.Popen(command, env=server_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        os.environ.update(variables)
        try:
            _create(endpoint, name)
            yield f"s3://{name}"
        finally:
            server.kill()
            for key, value in before.items():
                os.environ.pop(key)
                if value is not None:
                    os.environ[key] = value


def _create(endpoint: str, name: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(endpoint, timeout=1, trust_env=False)
            files = S3FileSystem(
                endpoint_override=endpoint, access_key="any", secret_key="any", allow_bucket_creation=True
            )
            files.create_dir(name)
            return
        except (httpx.TransportError, OSError):
            assert time.monotonic() < deadline, "the S3 server does not come up"
            time.sleep(0.1)
