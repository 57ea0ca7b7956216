"""What the real server did with real rows becomes numbers that the gates can bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.artifacts.store import Reference
from include.domain.evaluation.gate_settings import Gates
from include.domain.features.online_features import LandedSums
from include.ports.serving import ProbeResult
from include.stages.evaluation import evaluation, serving_check
from tests.unit.evaluation.test_evaluation import SPEC, World, sharp, world

__all__ = ["world"]


@dataclass
class FakeProbe:
    off: float = 0.0
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def score(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], landed_sums: Sequence[LandedSums] = ()
    ) -> ProbeResult:
        self.asked = list(rows)
        x = [np.nan if row["x"] is None else row["x"] for row in rows]
        return ProbeResult(sharp({"x": x}) + self.off, 3.5, 80.0)


def measure(world: World, probe: FakeProbe) -> dict[str, float]:
    return serving_check.measure_server(
        SPEC, world.evaluate(), tables=world.tables, scorer=world.scorer, probe=probe, rows=200
    )


def test_the_server_is_asked_with_rows_as_callers_send_them(world: World) -> None:
    probe = FakeProbe()
    measured = measure(world, probe)
    assert len(probe.asked) == 200
    assert set(probe.asked[0]) == {"at", "key", "x", "c"}, "a caller does not know the label"
    assert datetime.fromisoformat(probe.asked[0]["at"]).tzinfo is not None
    assert any(row["x"] is None for row in probe.asked)
    assert measured == {"p99_ms": 3.5, "memory_mb": 80.0, "score_gap": pytest.approx(0, abs=1e-12)}


def test_a_server_that_scores_otherwise_than_the_trainer_fails_the_gate(world: World, tmp_path: Path) -> None:
    measured = measure(world, FakeProbe(off=1e-3))
    assert measured["score_gap"] == pytest.approx(1e-3)
    spec = SPEC.model_copy(update={"gates": Gates(max_score_gap=1e-5, baselines=())})
    result = evaluation.judge(spec, world.evaluate(spec), measured)
    assert any("score_gap" in reason for reason in result.verdict.reasons)
