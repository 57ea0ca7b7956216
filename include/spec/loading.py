"""The spec files: read whole, every fault named, and one bad file hides no other model."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from include.domain.errors import UserMistake
from include.spec.model_spec import ModelSpec

SPECS = Path(__file__).parents[1] / "models"


def load(path: Path) -> ModelSpec:
    """The spec in that file. Raises UserMistake with every fault by its path in the YAML."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise UserMistake(f"{path.name}: cannot be read as YAML: {' '.join(str(fault).split())}") from None
    if not isinstance(data, dict):
        raise UserMistake(f"{path.name}: a spec is a mapping; copy include/models/flights.yaml and change it")
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as faults:
        lines = [f"  {'.'.join(map(str, f['loc'])) or 'spec'}: {_plain(f['msg'])}" for f in faults.errors()]
        raise UserMistake("\n".join([f"{path.name}: {len(lines)} fault(s)", *lines])) from None


def load_all(folder: Path = SPECS) -> tuple[list[ModelSpec], list[UserMistake]]:
    """Every valid spec of the folder by name, and one error for each file that is not, so one fault hides no other model."""
    specs: dict[str, ModelSpec] = {}
    faults: list[UserMistake] = []
    for path in sorted(folder.glob("*.y*ml")):
        try:
            spec = load(path)
            if spec.name in specs:
                raise UserMistake(f"{path.name}: name: another file already holds a model named {spec.name}")
            specs[spec.name] = spec
        except UserMistake as fault:
            faults.append(fault)
    return list(specs.values()), faults


def find(name: str, folder: Path = SPECS) -> ModelSpec:
    """The model's spec. Raises UserMistake when there is none, or naming what is wrong with its file."""
    specs, faults = load_all(folder)
    for spec in specs:
        if spec.name == name:
            return spec
    known = ", ".join(s.name for s in specs)
    raise UserMistake("\n".join([f"no valid model named {name}; there are: {known}", *map(str, faults)]))


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown key").replace(
        "Unexpected keyword argument", "unknown key")  # fmt: skip
