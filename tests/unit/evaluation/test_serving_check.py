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
from tests.unit.evaluation.candidates import SPEC, Candidates, sharp


@dataclass
class FakeProbe:
    """Scores as the challenger does, `offset` apart, and remembers the rows that it was sent."""

    offset: float = 0.0
    requests: list[Mapping[str, Any]] = field(default_factory=list)

    def score(
        self, model: str, artifact: Reference, rows: Sequence[Mapping[str, Any]], landed_sums: Sequence[LandedSums] = ()
    ) -> ProbeResult:
        self.requests = list(rows)
        x = [np.nan if row["x"] is None else row["x"] for row in rows]
        return ProbeResult(sharp({"x": x}) + self.offset, 3.5, 80.0)


def measure(candidates: Candidates, probe: FakeProbe) -> dict[str, float]:
    return serving_check.measure_server(
        SPEC, candidates.evaluate(), tables=candidates.tables, scorer=candidates.scorer, probe=probe, rows=200
    )


def test_the_server_is_asked_with_rows_as_callers_send_them(candidates: Candidates) -> None:
    probe = FakeProbe()
    measured = measure(candidates, probe)
    assert len(probe.requests) == 200
    assert set(probe.requests[0]) == {"at", "key", "x", "c"}, "a caller does not know the label"
    assert datetime.fromisoformat(probe.requests[0]["at"]).tzinfo is not None
    assert any(row["x"] is None for row in probe.requests)
    assert measured == {"p99_ms": 3.5, "memory_mb": 80.0, "score_gap": pytest.approx(0, abs=1e-12)}


def test_a_server_that_scores_otherwise_than_the_trainer_fails_the_gate(candidates: Candidates, tmp_path: Path) -> None:
    measured = measure(candidates, FakeProbe(offset=1e-3))
    assert measured["score_gap"] == pytest.approx(1e-3)
    spec = SPEC.model_copy(update={"gates": Gates(max_score_gap=1e-5, baselines=())})
    result = evaluation.judge(spec, candidates.evaluate(spec), measured)
    assert any("score_gap" in reason for reason in result.verdict.reasons)
