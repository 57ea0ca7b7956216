"""The probe with the real model server."""

from pathlib import Path

import pytest

from include.adapters.serving.probe import ServerProbe
from include.artifacts.store import Reference
from include.domain.errors import Unavailable
from tests.serving import expected, rows, write_artifact


def artifact(folder: Path) -> Reference:
    made = write_artifact(folder)
    return Reference(made["artifact_uri"], made["artifact_digest"])


def test_the_real_server_answers_every_row(tmp_path: Path) -> None:
    asked = rows(50)
    served = ServerProbe().score("flights", artifact(tmp_path / "model"), asked)
    assert served.scores == pytest.approx([expected(row) for row in asked], abs=1e-5)
    assert served.p99_ms > 0
    assert served.memory_mb > 10


def test_a_damaged_artifact_is_reported_in_the_servers_words(tmp_path: Path) -> None:
    damaged = artifact(tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"cut")
    with pytest.raises(Unavailable, match=r"model\.onnx"):
        ServerProbe(patience=3).score("flights", damaged, rows(1))


def test_a_row_that_the_server_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="400"):
        ServerProbe().score("flights", artifact(tmp_path / "model"), [{"nonsense": 1}])
