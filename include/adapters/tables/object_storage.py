"""Storage of runs in an S3 bucket: the tree of `home`, file by file; or none beside the disk.

A file here is the object there while size and modification time are the same: the copy takes on the object's time. So no
clocks are compared, and a file that either side wrote is noticed (S3 counts seconds, so of two writers of one file within
a second, who write as many bytes, a third may keep the first one's). The server checks each upload's SHA-256, and what is
fetched is compared with the checksum that the server has.

A record (a manifest, which names others by digest) goes last, and only in place of the version that this machine has
fetched or written itself: a hidden file beside it keeps that version's entity tag. Credentials and the server's address
are read from the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from include.adapters import s3
from include.adapters.tables.local_copy import (
    StoredObject,
    content_type,
    is_copy,
    is_record,
    note_etag,
    noted_etag,
    path_inside,
    whole_files,
)
from include.artifacts.atomic_write import draft_of
from include.domain.errors import Conflict, UserMistake

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from types_boto3_s3 import S3Client

PIECE = 1 << 20
NOT_FOUND = 404
#: What S3 answers to a conditional write whose condition does not hold: another writer was faster, or the object changed.
CONDITION_FAILED = (409, 412)
#: Seconds for which a link is good.
LINK_SECONDS = 900
CHECKSUM: Literal["SHA256"] = "SHA256"


class ObjectStorage:
    """The files below `home`, this machine's copy, in the bucket and under the prefix of `uri`: `s3://bucket/prefix`."""

    def __init__(self, home: Path, uri: str) -> None:
        self._home, self._uri = home, uri
        self._bucket, _, self._prefix = uri.removeprefix("s3://").strip("/").partition("/")

    def pull(self, folder: Path) -> None:
        """Make this machine's copy of what storage has under the folder.

        Raises Corrupt for an object whose name leads out of the folder, and UserMistake or Unavailable for what S3 refuses.
        """
        with self._plain_errors():
            for name, stored in self._list(folder).items():
                path = path_inside(folder, name)
                if not is_copy(path, stored):
                    self._download(stored, path)
                if is_record(path):
                    note_etag(path, stored.etag)

    def push(self, folder: Path) -> None:
        """Bring what is new or changed under the folder to storage.

        Raises Conflict, before anything is written, where somebody replaced a record that changed here too.
        """
        with self._plain_errors():
            there = self._list(folder)
            changed = {n: path for n, path in whole_files(folder) if n not in there or not is_copy(path, there[n])}
            for name, path in changed.items():
                if is_record(path) and name in there and noted_etag(path) != there[name].etag:
                    self._expect_same_content(path, there[name].key)
            for path in changed.values():
                self._upload(path)

    def replace(self, folder: Path) -> None:
        """Do as `push` does, for the folder's only writer: what is no longer here is removed from storage too."""
        self.push(folder)
        with self._plain_errors():
            here = dict(whole_files(folder))
            for name, stored in self._list(folder).items():
                if name not in here:
                    self._client.delete_object(Bucket=self._bucket, Key=stored.key)

    def link(self, path: Path) -> str | None:
        """Return a link by which a browser reads the file for the next 15 minutes, or None where storage does not have it.

        It leads to the address that `AWS_ENDPOINT_URL` names and bears a signature instead of a login.
        """
        with self._plain_errors():
            key = self._key(path)
            if self._head(key) is None:
                return None
            place = {"Bucket": self._bucket, "Key": key}
            return self._client.generate_presigned_url("get_object", Params=place, ExpiresIn=LINK_SECONDS)

    @cached_property
    def _client(self) -> "S3Client":
        return s3.client()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Raise what the S3 client raises as one of ours."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            raise s3.plain_error(self._uri, error) from None

    def _key(self, path: Path) -> str:
        """Return the object's key. Raises UserMistake for a path outside of the home."""
        home = Path(os.path.normpath(self._home))
        normal = Path(os.path.normpath(path))
        if not normal.is_relative_to(home):
            raise UserMistake(f"{path} does not lie in {self._home}: only what does is kept in {self._uri}")
        return "/".join(filter(None, (self._prefix, normal.relative_to(home).as_posix())))

    def _list(self, folder: Path) -> dict[str, StoredObject]:
        """Return the objects under the folder, by their names relative to it."""
        prefix = self._key(folder) + "/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        objects = (o for page in pages for o in page.get("Contents", []) if not o["Key"].endswith("/"))
        return {
            o["Key"].removeprefix(prefix): StoredObject(
                o["Key"], o["Size"], _nanoseconds(o["LastModified"]), o.get("ETag", "")
            )
            for o in objects
        }

    def _head(self, key: str) -> StoredObject | None:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _status(error) != NOT_FOUND:
                raise
            return None
        return StoredObject(key, head["ContentLength"], _nanoseconds(head["LastModified"]), head["ETag"])

    def _download(self, stored: StoredObject, path: Path) -> None:
        body = self._client.get_object(Bucket=self._bucket, Key=stored.key, ChecksumMode="ENABLED")["Body"]
        with draft_of(path) as draft:
            with draft.open("wb") as target:
                for piece in body.iter_chunks(PIECE):
                    target.write(piece)
            os.utime(draft, ns=(stored.mtime_ns, stored.mtime_ns))

    def _upload(self, path: Path) -> None:
        """Bring a file to storage, and give it the object's time unless it was written again meanwhile."""
        key = self._key(path)
        try:
            source = path.open("rb")
        except FileNotFoundError:  # a checkpoint that made room for a newer one meanwhile
            return
        with source:
            written = os.fstat(source.fileno()).st_mtime_ns
            if is_record(path):
                self._put_record(path, key, source.read())
            else:
                extra = {"ChecksumAlgorithm": CHECKSUM, "ContentType": content_type(path)}
                self._client.upload_fileobj(source, self._bucket, key, ExtraArgs=extra)
        stored = self._head(key)
        if stored and path.exists() and path.stat().st_mtime_ns == written:
            os.utime(path, ns=(stored.mtime_ns, stored.mtime_ns))

    def _put_record(self, path: Path, key: str, content: bytes) -> None:
        """Write the record in place of the version that this machine knows. Raises Conflict where there is another."""
        from botocore.exceptions import ClientError

        etag = noted_etag(path)
        condition: dict[str, Any] = {"IfMatch": etag} if etag and self._head(key) else {"IfNoneMatch": "*"}
        try:
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content,
                ChecksumAlgorithm=CHECKSUM,
                ContentType=content_type(path),
                **condition,
            )
        except ClientError as error:
            if _status(error) not in CONDITION_FAILED:
                raise
            self._expect_same_content(path, key)
            return
        note_etag(path, answer["ETag"])

    def _expect_same_content(self, path: Path, key: str) -> None:
        """Take an object of the file's own content for the version that this machine knows. Raises Conflict for another."""
        answer = self._client.get_object(Bucket=self._bucket, Key=key)
        if answer["Body"].read() != path.read_bytes():
            raise Conflict(f"s3://{self._bucket}/{key}: somebody replaced it meanwhile; look at both and run it again")
        note_etag(path, answer["ETag"])


class LocalDisk:
    """Storage where all machines share `home`, or there is one: nothing has to be carried."""

    def pull(self, folder: Path) -> None: ...

    def push(self, folder: Path) -> None: ...

    def replace(self, folder: Path) -> None: ...

    def link(self, path: Path) -> str | None:
        """Return None: a file is read where it lies."""


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _status(error: "ClientError") -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
