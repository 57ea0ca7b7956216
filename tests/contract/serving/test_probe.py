"""The probe with the real model server."""

from pathlib import Path

import pytest

from include.adapters.serving.probe import ServerProbe
from include.artifacts.store import Reference
from include.domain.errors import Unavailable
from tests.serving import expected, rows, write_artifact


def artifact(folder: Path) -> Reference:
    version = write_artifact(folder)
    return Reference(version["artifact_uri"], version["artifact_digest"])


def test_the_real_server_answers_every_row(tmp_path: Path) -> None:
    sent = rows(50)
    result = ServerProbe().score("flights", artifact(tmp_path / "model"), sent)
    assert result.scores == pytest.approx([expected(row) for row in sent], abs=1e-5)
    assert result.p99_ms > 0
    assert result.memory_mb > 10


def test_a_damaged_artifact_is_reported_in_the_servers_words(tmp_path: Path) -> None:
    damaged = artifact(tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"cut")
    with pytest.raises(Unavailable, match=r"model\.onnx"):
        ServerProbe(patience=3).score("flights", damaged, rows(1))


def test_a_row_that_the_server_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="400"):
        ServerProbe().score("flights", artifact(tmp_path / "model"), [{"nonsense": 1}])
