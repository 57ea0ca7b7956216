"""The program of a training's pod on a real S3 server: what one pod kept, the next one goes on from."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector, FileSystem

from include.adapters.tables.object_storage import ObjectStorage
from include.settings import ROOT
from tests.bucket import bucket
from tests.gateway import until
from tests.small_dataset import write_dataset, write_job


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(tmp_path_factory.mktemp("s3")) as uri:
        yield uri


class Pods:
    """Pods of one training: each starts with an empty home, as a new pod does."""

    def __init__(self, home: Path, uri: str, **training: Any) -> None:
        self.home, self.uri = home, uri
        self.job = write_job(write_dataset(home / "runs" / "dataset"), home / "runs" / "dcn", **training)
        ObjectStorage(home, uri).push(home / "runs")
        shutil.rmtree(home)

    def start(self, *options: str, home: Path | None = None) -> subprocess.Popen[str]:
        environ = {**os.environ, "PERENNIAL_HOME": str(home or self.home), "PERENNIAL_STORAGE": self.uri}
        command = [sys.executable, "-m", "include.entrypoints.training_pod", str(self.job), *options]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stored(self) -> set[str]:
        files, root = FileSystem.from_uri(self.uri)
        place = f"{root}/runs/dcn"
        return {info.path[len(place) + 1 :] for info in files.get_file_info(FileSelector(place, recursive=True))}


def test_a_pod_that_must_go_leaves_a_checkpoint_from_which_the_next_one_goes_on(uri: str, tmp_path: Path) -> None:
    pods = Pods(tmp_path / "home", f"{uri}/spot", epochs=20, checkpoint_steps=20)
    with pods.start() as first:
        until(lambda: any((pods.home / "runs/dcn/checkpoints").glob("step-*.safetensors")))
        first.terminate()
        last_line = first.communicate()[0].strip().splitlines()[-1]
    assert first.returncode == 75
    stopped = re.search(r"stopped after step (\d+) of", last_line)
    assert stopped
    step = int(stopped[1])
    assert any(name.startswith(f"checkpoints/step-{step:09d}") for name in pods.stored())
    shutil.rmtree(pods.home)
    with pods.start() as second:
        output = second.communicate()[0]
    assert second.returncode == 0, output
    assert f"going on after step {step} of" in output
    assert "manifest.json" in pods.stored()
    assert not [name for name in pods.stored() if name.startswith("checkpoints/step")]


def test_a_mistake_ends_with_the_trainers_line_and_its_own_code(uri: str, tmp_path: Path) -> None:
    pods = Pods(tmp_path / "home", f"{uri}/mistake", embedding=8)
    storage = ObjectStorage(pods.home, pods.uri)
    storage.pull(pods.job.parent)
    pods.job.write_text(json.dumps({**json.loads(pods.job.read_text()), "family": "oracle"}))
    storage.push(pods.job.parent)
    with pods.start() as pod:
        assert "family: 'oracle' is not one of" in pod.communicate()[0].splitlines()[-1]
    assert pod.returncode == 2


def test_two_nodes_meet_and_one_of_them_keeps_the_result(uri: str, tmp_path: Path) -> None:
    pods = Pods(tmp_path / "home", f"{uri}/nodes")
    meeting = ("--nodes=2", "--master=127.0.0.1")
    with pods.start("--node=0", *meeting) as first, pods.start("--node=1", *meeting) as second:
        output = first.communicate()[0]
        assert (first.returncode, second.wait()) == (0, 0), output
    assert "manifest.json" in pods.stored()


def test_nodes_with_different_checkpoints_start_again_and_do_not_drift_apart(tmp_path: Path) -> None:
    job = write_job(write_dataset(tmp_path / "dataset"), tmp_path / "out")
    program = tmp_path / "nodes.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom include.trainer import job\nfrom include.trainer.distributed import process_group\n"
        "with process_group.join(job.read(Path(sys.argv[1])).training) as here:\n    here.check_same_step(5)\n    here.check_same_step(here.rank)\n"
    )
    command = [
        sys.executable,
        "-m",
        "include.trainer.elastic",
        "--standalone",
        "--nproc-per-node=2",
        str(program),
        str(job),
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode
    assert "are of steps 0 to 1; start again" in ended.stderr
