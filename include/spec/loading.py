"""Reading of the spec files: each is checked whole, every error is named, and a bad file hides no other model."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from include.domain.errors import UserMistake
from include.spec.model_spec import ModelSpec

SPECS = Path(__file__).parents[1] / "models"


def load(path: Path) -> ModelSpec:
    """Return the spec in this file. Raises UserMistake with every error by its path in the YAML."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserMistake(f"{path.name}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserMistake(f"{path.name}: a spec is a mapping; copy include/models/flights.yaml and change it")
    try:
        return ModelSpec.model_validate(content)
    except ValidationError as invalid:
        lines = [f"  {_located(error['loc'], error['msg'])}" for error in invalid.errors()]
        raise UserMistake("\n".join([f"{path.name}: {len(lines)} error(s)", *lines])) from None


def load_all(folder: Path = SPECS) -> tuple[list[ModelSpec], list[UserMistake]]:
    """Return every valid spec of the folder, by file name, and one error for each file that is not valid."""
    specs: dict[str, ModelSpec] = {}
    errors: list[UserMistake] = []
    for path in sorted(folder.glob("*.y*ml")):
        try:
            spec = load(path)
            if spec.name in specs:
                raise UserMistake(f"{path.name}: name: another file already holds a model named {spec.name}")
            specs[spec.name] = spec
        except UserMistake as error:
            errors.append(error)
    return list(specs.values()), errors


def find(name: str, folder: Path = SPECS) -> ModelSpec:
    """Return the model's spec. Raises UserMistake when there is none, with what is wrong with the files that are invalid."""
    specs, errors = load_all(folder)
    for spec in specs:
        if spec.name == name:
            return spec
    names = ", ".join(s.name for s in specs)
    raise UserMistake("\n".join([f"no valid model named {name}; there are: {names}", *map(str, errors)]))


def _located(location: tuple[str | int, ...], message: str) -> str:
    """Return pydantic's message in plain words, behind the path of the setting that it is about."""
    plain = message.removeprefix("Value error, ")
    for jargon in ("Extra inputs are not permitted", "Unexpected keyword argument"):
        plain = plain.replace(jargon, "unknown key")
    return ": ".join([".".join(map(str, location)), plain] if location else [plain])
