"""`./perennial`: verbs that explain themselves, and errors of one line."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.local.__main__ import main
from include.local.commands import model_names
from include.settings import ROOT

VERBS = (
    "up",
    "down",
    "status",
    "logs",
    "demo",
    "champion",
    "why",
    "expectations",
    "rollback",
    "reproduce",
    "schema",
    "k8s",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    return tmp_path


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"^│ {verb} +\S", output, flags=re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"Usage: perennial {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing-like-it"], "No such command 'nothing-like-it'. (perennial --help)"),
        (["champion"], "Missing argument 'MODEL'. (perennial champion --help)"),
        (["why", "flights", "--at", "yesterday"], "Invalid isoformat string: 'yesterday' (perennial why --help)"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(
    words: list[str], sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.endswith(f"{sentence}\n")
    assert line.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line_and_exit_code_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", "nobody"]) == 1
    assert capsys.readouterr().err == "the gateway has no model named 'nobody'; this stack serves flights\n"


def test_a_stack_that_is_down_is_said_with_exit_code_3(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 3
    assert capsys.readouterr().out == "the stack is down: perennial up starts it\n"
    assert main(["logs"]) == 3


def test_champion_asks_the_ledger_for_the_moment_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    assert main(["champion", "flights", "--on", before.isoformat()]) == 0
    assert "flights had no champion at" in capsys.readouterr().out


def test_the_schema_is_the_specs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "ModelSpec"


def test_model_names_complete(home: Path) -> None:
    assert model_names("fl") == ["flights"]


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        name
        for line in re.findall(r"^([a-z0-9%][a-z0-9% -]*):(?!=)", makefile, flags=re.MULTILINE)
        for name in line.split()
    }
    listed = subprocess.run(
        ["make", "-s", "-f", ROOT / "Makefile", "help"], capture_output=True, text=True, check=True
    ).stdout
    assert targets <= {name for line in listed.splitlines() for name in line.split()}
    assert {"k8s-check", "test-k8s", "bench-%", "test-fast"} <= targets
