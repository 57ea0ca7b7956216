"""A small spec for tests of the stages."""

from typing import Any

from include.spec.model_spec import ModelSpec

TOY: dict[str, Any] = {
    "name": "toy",
    "description": "Is y true?",
    "source": {"path": "inbox/toy/*.csv", "format": "csv"},
    "columns": {"time": "at", "label": "y", "keys": ["key"], "numeric": ["x"], "categorical": ["c"]},
    "schedule": {"start": "2026-01-01T00:00:00Z"},
}


def toy(**sections: Any) -> ModelSpec:
    return ModelSpec.model_validate({**TOY, **sections})
