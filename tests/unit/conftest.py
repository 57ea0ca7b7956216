"""Fixtures that several files share."""

from pathlib import Path

import pytest

from tests.unit.evaluation.candidates import Candidates, make_candidates
from tests.unit.rollout.scenario import PLAN, RolloutScenario
from tests.unit.toy import toy


@pytest.fixture
def scenario(tmp_path: Path) -> RolloutScenario:
    """Version 1 is champion, version 2 is to replace it."""
    scenario = RolloutScenario(tmp_path, toy(rollout=PLAN))
    scenario.registry.add("toy", 2)
    scenario.registry.set_tags("toy", "2", {"mlflow_run_id": "m2"})
    scenario.registry.aliases["champion"] = "1"
    return scenario


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    """A good challenger, a weaker champion and a weaker baseline."""
    return make_candidates(tmp_path)
