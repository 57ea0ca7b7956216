"""Fixtures that several files share."""

from pathlib import Path

import pytest

from tests.unit.rollout.rolling import PLAN, World
from tests.unit.toy import toy


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 is champion, version 2 is to replace it."""
    world = World(tmp_path, toy(rollout=PLAN))
    world.registry.add("toy", 2)
    world.registry.set_tags("toy", "2", {"mlflow_run_id": "m2"})
    world.registry.aliases["champion"] = "1"
    return world
