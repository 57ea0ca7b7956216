"""The docs name what there is: files, modules, make targets, settings, keys of the spec, metrics, and each other."""

import ast
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS
from include.settings import ROOT
from include.spec.model_spec import ModelSpec

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
FOLDERS = {str(parent) for name in FILES for parent in Path(name).parents}
CODE = "\n".join((ROOT / name).read_text() for name in FILES if name.endswith(".py") or name == "Makefile")
#: Where a path in the docs may start: at the top, or within `include` where a page says `domain/…`.
STARTS = ("", "include/")
TOPS = {Path(name).parts[0] for name in FILES} | {path.name for path in (ROOT / "include").iterdir() if path.is_dir()}
MODULES = "(?:include|plugins|dags|benchmarks|tests)"
SCHEMA = ModelSpec.model_json_schema()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def names(page: Path) -> list[str]:
    """Return what the page names in backticks, outside of blocks of code."""
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def blocks(page: Path) -> list[str]:
    """Return the page's blocks of code: fenced ones, and lines indented by four spaces."""
    text = page.read_text()
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [*fenced, *re.findall(r"^    .*$", text, flags=re.MULTILINE)]


def paths(page: Path) -> Iterator[str]:
    """Yield the repository's paths that the page names, without those that have a place to be filled in."""
    for name in names(page):
        path = name.removeprefix("./").rstrip("/")
        is_path = "/" in path and path.partition("/")[0] in TOPS
        is_file = re.fullmatch(r"[\w.-]+\.(py|yaml|md|lock|toml|lua)", path) and not path.startswith(".")
        if (is_path or is_file) and not re.search(r"[<>{}$ :|=…]", path):
            yield path


def exists(path: str) -> bool:
    if "/" not in path:
        return any(Path(name).name == path for name in FILES)
    if "*" in path:
        return any(fnmatch(name, start + path) for start in STARTS for name in FILES)
    return any(start + path in FOLDERS or start + path in FILES for start in STARTS)


def example_imports(page: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """Yield module and name of what the page's Python imports from the project, with the block."""
    for block in blocks(page):
        if re.search(rf"^\s*from {MODULES}", block, flags=re.MULTILINE):
            tree = ast.parse(re.sub(r"^  ", "", block, flags=re.MULTILINE) if block.startswith("  ") else block)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    yield from ((str(node.module), alias.name, tree) for alias in node.names)


def definition(module: str, name: str) -> ast.stmt | None:
    spec = find_spec(module)
    assert spec, f"there is no module {module}"
    assert spec.origin
    body = ast.parse(Path(spec.origin).read_text()).body
    return next((node for node in body if getattr(node, "name", None) == name), None)


def keys_of(node: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a section of the spec's schema, by name."""
    if "$ref" in node:
        return keys_of(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
    properties = dict(node.get("properties", {}))
    for part in [*node.get("anyOf", []), *([node["items"]] if "items" in node else [])]:
        properties |= keys_of(part)
    return properties


def in_spec(key: str) -> bool:
    node: dict[str, Any] = SCHEMA
    for name in key.split("."):
        if name not in (keys := keys_of(node)):
            return False
        node = keys[name]
    return True


@each_page
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in paths(page) if not exists(path)] == []


@each_page
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    text = "\n".join([*names(page), *blocks(page)])
    modules = set(re.findall(rf"(?:-m |from |import )({MODULES}(?:\.\w+)*)", text))
    assert [module for module in modules if find_spec(module) is None] == []


@each_page
def test_every_example_imports_and_calls_what_is_defined(page: Path) -> None:
    for module, name, tree in example_imports(page):
        node = definition(module, name)
        assert node or find_spec(f"{module}.{name}"), f"{module} has no {name}"
        if isinstance(node, ast.ClassDef):
            fields = {a.target.id for a in node.body if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name)}
            calls = (c for c in ast.walk(tree) if isinstance(c, ast.Call) and getattr(c.func, "id", None) == name)
            assert {keyword.arg for call in calls for keyword in call.keywords} <= fields


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text())
    assert [link for link in links if not re.match(r"\w+:", link) and not (page.parent / link).exists()] == []


@each_page
def test_every_make_target_and_benchmark_that_a_page_names_exists(page: Path) -> None:
    lines = [*names(page), *(line for block in blocks(page) for line in block.splitlines())]
    targets = {target for line in lines for target in re.findall(r"(?:^|\s)make ([a-z][\w-]*)", line)}
    benches = {name for line in lines for name in re.findall(r"python -m benchmarks (\w+)", line)}
    benches |= {target.removeprefix("bench-") for target in targets if target.startswith("bench-")}
    rules = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {t for t in targets if not t.startswith("bench-")} - {t for rule in rules for t in rule.split()} == set()
    assert benches - set(BENCHMARKS) == set()


@each_page
def test_every_setting_and_every_metric_that_a_page_names_is_in_the_code(page: Path) -> None:
    fields = {
        name.upper() for name in re.findall(r"^    (\w+): ", (ROOT / "include/settings.py").read_text(), re.MULTILINE)
    }
    settings = set(re.findall(r"PERENNIAL_([A-Z_]+[A-Z])", page.read_text()))
    metrics = set(re.findall(r"\bperennial_[a-z_]+[a-z]\b", page.read_text())) - {"perennial_requests_per_second"}
    assert {name for name in settings - fields if f"PERENNIAL_{name}" not in CODE} == set()
    assert {name for name in metrics if name not in CODE} == set()


@each_page
def test_every_key_of_the_spec_that_a_page_names_is_one(page: Path) -> None:
    keys = {m[1] for name in names(page) if (m := re.match(r"([a-z]+(?:\.[a-z_0-9]+)+)(?::|$)", name))}
    sections = {key for key in keys if key.partition(".")[0] in SCHEMA["properties"] and not exists(key)}
    files = {key for key in sections if re.search(r"\.(onnx|txt|safetensors|json)$", key)}
    assert {key for key in sections - files if not in_spec(key)} == set()


def test_the_tree_of_the_architecture_names_what_there_is() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().partition("## The tree")[2].partition("\n## ")[0]
    folders: list[str] = []
    for indent, name in re.findall(r"^    ( *)([\w./]+)", tree, flags=re.MULTILINE):
        folders[len(indent) // 2 :] = [name]
        assert (ROOT / "".join(folders)).exists(), "".join(folders)


def test_every_page_is_linked_from_the_index() -> None:
    indexes = [ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"]
    linked = {
        (index.parent / link).resolve()
        for index in indexes
        for link in re.findall(r"\]\(([^)#\s]+)", index.read_text())
    }
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - linked == {indexes[0]}
