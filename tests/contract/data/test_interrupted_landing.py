"""A landing that is broken off: nothing half-written is ever seen, and the next run ends where an undisturbed one does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from include.adapters.sources.files import FileSource
from include.adapters.tables.delta import DeltaTables
from include.adapters.tables.json_records import JsonRecords
from include.domain.windows import Window, parse_utc
from include.stages.data import landing
from tests.contract.data.test_bad_input import HEADER, Home
from tests.unit.toy import toy


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


PROGRAM = """
import resource, signal, sys
from pathlib import Path
from tests.contract.data.test_interrupted_landing import many_windows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
many_windows(Path(sys.argv[1]))
"""
WINDOWS = [
    Window(parse_utc("2026-01-01") + n * timedelta(days=1), parse_utc("2026-01-02") + n * timedelta(days=1))
    for n in range(40)
]


def many_windows(path: Path) -> dict[str, str]:
    """Land forty windows of the home at `path`, four a run; their digests."""
    spec = toy(source={"path": "inbox/toy", "format": "csv"})
    tables, records = DeltaTables(path / "tables"), JsonRecords(path / "records")
    digests: dict[str, str] = {}
    for n in range(0, len(WINDOWS), 4):
        report = landing.land(spec, WINDOWS[n : n + 4], FileSource(spec.source, path), tables, records, f"run{n}")
        digests |= {w.window: w.digest for w in report.windows}
    return digests


def forty_days(rows: int) -> str:
    return HEADER + "".join(
        f"{w.start:%Y-%m-%d}T05:00:00Z,{w.start:%d%m}-{n},1,{n / 7},{'abc'[n % 3]}{n * 7919}\n"
        for w in WINDOWS
        for n in range(rows)
    )


def start(path: Path, limit: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(path), str(limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def await_(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def test_disk_full_leaves_nothing_half_written_and_a_second_run_finishes(home: Home) -> None:
    home.give(forty_days(400))
    program = start(home.path, 4096)
    _, output = program.communicate(timeout=120)
    assert program.returncode != 0
    assert "Unavailable" in output
    assert home.tables.version("landed") is None
    undisturbed = Home(home.path / "other")
    undisturbed.give(forty_days(400))
    assert many_windows(home.path) == many_windows(undisturbed.path)


def test_kill_during_the_write_and_a_second_run_gives_the_undisturbed_digest(home: Home) -> None:
    home.give(forty_days(50))
    program = start(home.path, 0)
    log = home.path / "tables" / "landed" / "_delta_log"
    await_(lambda: log.is_dir() and len(list(log.glob("*.json"))) >= 3)
    os.kill(program.pid, signal.SIGKILL)
    program.communicate(timeout=60)
    there = home.tables.windows("landed")
    assert 12 <= len(there) < 40
    assert all(home.tables.read("landed", [w]).num_rows == 50 for w in WINDOWS[: len(there)])
    undisturbed = Home(home.path / "other")
    undisturbed.give(forty_days(50))
    assert many_windows(home.path) == many_windows(undisturbed.path)
    assert home.tables.read("landed", WINDOWS).num_rows == 40 * 50
