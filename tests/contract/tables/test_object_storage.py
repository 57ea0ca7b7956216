"""Storage on a real S3 server, seen from two machines."""

import base64
import hashlib
import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError

from include.adapters import s3
from include.adapters.tables.object_storage import LocalDisk, ObjectStorage
from include.domain.errors import Conflict, Corrupt, Unavailable, UserMistake
from tests.bucket import bucket

Machine = tuple[Path, ObjectStorage]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(tmp_path_factory.mktemp("s3")) as uri:
        yield uri


@pytest.fixture
def machines(uri: str, tmp_path: Path) -> tuple[Machine, Machine]:
    """Two homes over one prefix."""
    homes = tmp_path / "one", tmp_path / "two"
    one, two = (ObjectStorage(home, f"{uri}/{tmp_path.name}") for home in homes)
    return (homes[0] / "runs" / "r1", one), (homes[1] / "runs" / "r1", two)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@contextmanager
def listing_server(key: str) -> Iterator[str]:
    """Yield the address of an S3 server that lists one object of this name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            row = f"<Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size><ETag>1</ETag>"
            body = f"<ListBucketResult><Contents>{row}</Contents></ListBucketResult>".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tree(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_what_one_machine_keeps_another_has(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    write(here / "dataset" / "train.ids.npy", "ids"), write(here / "dcn" / "manifest.json", "{}")
    one.push(here)
    two.pull(there)
    assert tree(there) == tree(here)


def test_a_change_goes_both_ways(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    write(here / "job.json", "one")
    one.push(here)
    two.pull(there)
    write(there / "job.json", "three")
    two.push(there)
    one.pull(here)
    assert tree(here) == {"job.json": "three"}


def test_nothing_is_carried_twice(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    path = write(here / "ids.npy", "ids")
    one.push(here)
    two.pull(there)
    inode, stamp = (there / "ids.npy").stat().st_ino, path.stat().st_mtime_ns
    two.push(there)
    one.push(here)
    two.pull(there)
    one.pull(here)
    assert ((there / "ids.npy").stat().st_ino, path.stat().st_mtime_ns) == (inode, stamp)


def test_neither_the_same_size_nor_a_slow_clock_hides_a_change(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    path = write(here / "job.json", "one")
    one.push(here)
    path.write_text("two")
    os.utime(path, (0, 0))
    one.push(here)
    two.pull(there)
    assert tree(there) == {"job.json": "two"}


def test_the_only_writer_removes_what_it_no_longer_has_and_push_does_not(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    old = write(here / "checkpoints" / "step-1", "1")
    one.push(here)
    old.unlink()
    write(here / "checkpoints" / "step-2", "2")
    one.push(here)
    two.pull(there)
    assert set(tree(there)) == {"checkpoints/step-1", "checkpoints/step-2"}
    one.replace(here)
    (there / "checkpoints" / "step-1").unlink()
    two.pull(there)
    assert set(tree(there)) == {"checkpoints/step-2"}


def test_half_written_files_and_locks_stay_at_home(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    for name in ("model.onnx.part", "lock", ".job.json.17", "whole"):
        write(here / name, "x")
    one.push(here)
    two.pull(there)
    assert set(tree(there)) == {"whole"}


def test_a_storage_that_is_away_is_worth_another_try(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here, one), _ = machines
    write(here / "whole", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="s3://perennial"):
        one.push(here)


def test_a_manifest_goes_last_and_only_over_the_version_that_was_seen(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    write(here / "model.onnx", "1"), write(here / "manifest.json", "first")
    one.push(here)
    two.pull(there)
    write(there / "manifest.json", "second")
    two.push(there)
    write(here / "model.onnx", "another"), write(here / "manifest.json", "third, of what came first")
    with pytest.raises(Conflict, match=r"manifest\.json: somebody replaced it meanwhile"):
        one.push(here)
    two.pull(there)
    assert tree(there)["manifest.json"] == "second"
    assert tree(there)["model.onnx"] == "1", "nothing that the refused manifest names was written"


def test_a_manifest_of_the_same_content_is_nobodys_loss(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    write(here / "manifest.json", "the same")
    write(there / "manifest.json", "the same")
    one.push(here)
    two.push(there)
    write(here / "manifest.json", "next")
    one.push(here)
    two.pull(there)
    assert tree(there)["manifest.json"] == "next"


def test_of_two_who_write_a_new_manifest_at_once_one_is_refused(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    barrier = threading.Barrier(2)

    def push(machine: Machine, content: str) -> bool:
        write(machine[0] / "manifest.json", content)
        barrier.wait()
        try:
            machine[1].push(machine[0])
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(push, machines, ("mine", "yours")))
    assert sorted(done) == [False, True]
    winner = here if done[0] else there
    shutil.rmtree(there if done[0] else here)
    one.pull(here)
    two.pull(there)
    assert tree(here) == tree(there) == tree(winner)


def test_a_large_file_comes_back_whole(machines: tuple[Machine, Machine]) -> None:
    (here, one), (there, two) = machines
    content = random.Random(0).randbytes(20 << 20)
    write(here / "large", "").write_bytes(content)
    one.push(here)
    two.pull(there)
    assert (there / "large").read_bytes() == content


def test_the_server_checks_the_content_of_each_upload(machines: tuple[Machine, Machine], uri: str) -> None:
    """Every upload bears its SHA-256; the server takes no other content."""
    (here, one), _ = machines
    write(here / "model.onnx", "weights"), write(here / "manifest.json", "{}")
    one.push(here)
    bucket_name = uri.removeprefix("s3://")
    key = f"{here.parents[2].name}/runs/r1/model.onnx"
    head = s3.client().head_object(Bucket=bucket_name, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"weights").digest()).decode()
    with pytest.raises(ClientError, match="BadDigest"):
        s3.client().put_object(Bucket=bucket_name, Key=key, Body=b"other", ChecksumSHA256=head["ChecksumSHA256"])


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/../../outside"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The real server refuses to keep such a name; another one may not."""
    with listing_server(f"p/runs/r1/{name}") as endpoint:
        for variable, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        with pytest.raises(Corrupt, match="leads out of"):
            ObjectStorage(tmp_path / "home", "s3://bucket/p").pull(tmp_path / "home" / "runs" / "r1")
    assert not list(tmp_path.rglob("*outside*"))


def test_a_folder_or_link_outside_of_the_home_is_refused(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    (here, one), _ = machines
    write(tmp_path / "secret", "x"), write(here / "whole", "x")
    (here / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserMistake, match="leads out of"):
        one.push(here)
    for folder in (tmp_path / "elsewhere", here / ".." / ".." / ".." / "two"):
        with pytest.raises(UserMistake, match="does not lie in"):
            one.push(folder)


def test_a_link_shows_a_file_to_whoever_has_it_and_to_nobody_else(machines: tuple[Machine, Machine]) -> None:
    (here, one), _ = machines
    card = write(here / "evaluation" / "card.html", "<p>evidence</p>")
    assert one.link(card) is None, "storage does not have it yet"
    one.push(here)
    link = one.link(card)
    assert link is not None
    answer = httpx.get(link, trust_env=False)
    assert (answer.status_code, answer.text) == (200, "<p>evidence</p>")
    assert answer.headers["content-type"] == "text/html"
    assert httpx.get(link.replace("card.html", "other.html"), trust_env=False).status_code == 403
    assert LocalDisk().link(card) is None


def test_what_s3_refuses_is_said_in_a_line(machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    (here, one), _ = machines
    write(here / "whole", "x")
    with pytest.raises(UserMistake, match="there is no such bucket"):
        ObjectStorage(here.parents[1], "s3://nowhere/p").push(here)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserMistake, match="S3 refuses the credentials"):
        one.push(here)
