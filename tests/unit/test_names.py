"""One name stands for one thing, and every public docstring can be read alone."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.settings import ROOT

CODE = ("include", "plugins", "dags")
#: Names that say nothing of what a thing is.
VAGUE = {
    "known",
    "said",
    "told",
    "kept",
    "found",
    "asked",
    "seen",
    "heard",
    "given",
    "shown",
    "news",
    "fault",
    "faults",
}
#: Vague names that must stay, with the reason.
ALLOWED_NAMES = {
    ("include/spec/data.py", "known"): "a key of the users' YAML files",
    ("include/artifacts/evaluation_record.py", "faults"): "a key of the records on disk",
    ("include/server/lookups.py", "fault"): "a key of the answer to /status",
}
#: File names that several layers share on purpose: the steps of the loop, and things of which each layer has its part.
SHARED_FILE_NAMES = {
    "__init__": "packages",
    "__main__": "programs",
    "actions": "what a person may ask of a rollout, and doing it",
    "data": "a step of the loop",
    "dataset": "made by a stage, read by the trainer",
    "delta": "Delta tables, as a source and as our own",
    "ledger": "the port and its adapter",
    "pods": "what a training asks of a cluster, and its pods as Kubernetes takes them",
    "rollout": "a step of the loop",
    "search": "the stage and its tasks",
    "services": "what the stages of one step need from the world",
    "train": "the training loop, and the tasks of the DAG",
    "training": "a step of the loop",
    "validation": "the port and the stage",
}
#: Beginnings of docstrings that only continue a sentence which the reader does not have.
FRAGMENT = re.compile(r"(Of|As|Whose|Where|Which|That|Those|These|By)\b")
#: Methods that a framework calls and documents, by the class that declares them.
HOOKS = {
    "torch.nn.Module": {"forward"},
    "airflow.sdk.BaseOperator": {"execute", "poke", "notify", "get_link"},
    "airflow.triggers.base.BaseTrigger": {"run", "serialize"},
    "asyncio.Protocol": {"connection_made", "connection_lost", "pause_writing", "resume_writing", "data_received"},
    "httptools.HttpRequestParser": {
        "on_message_begin",
        "on_url",
        "on_header",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
    },
    "pynvml": {"nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo"},
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def trees(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield every Python file of the folders by its path from the root, with its syntax tree."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything that the file gives a name to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, Definition):
            yield node.lineno, node.name
        elif isinstance(node, ast.ExceptHandler | ast.alias):
            name = node.name if isinstance(node, ast.ExceptHandler) else node.asname
            yield node.lineno, name or ""


def public_definitions(tree: ast.Module) -> Iterator[Definition]:
    """Yield the public classes and functions of a file, and the public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
                yield from (each for each in methods if not each.name.startswith("_"))


def documented_elsewhere() -> set[str]:
    """Return the names of the methods that a base class describes: a Protocol, another class of `include`, or a framework's."""
    classes = [node for _, tree in trees("include") for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}
    protocols = [node for node in classes if "Protocol" in ast.unparse(ast.Tuple(node.bases)) or node.name in bases]
    methods = [method for node in protocols for method in node.body if isinstance(method, ast.FunctionDef)]
    return {method.name for method in methods if ast.get_docstring(method)} | set().union(*HOOKS.values())


def complaint(docstring: str | None) -> str:
    """Return what is wrong with a docstring; nothing where it stands alone."""
    if not docstring:
        return "no docstring"
    first = docstring.split("\n\n")[0].strip()
    if FRAGMENT.match(first):
        return f"a fragment: {first[:60]}"
    if not first.endswith((".", "!", "?", ":")):
        return f"no full stop: {first[:60]}"
    return ""


def test_no_class_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for path, tree in trees(*CODE):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{path}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_file_name_means_two_things() -> None:
    places = defaultdict(list)
    for path, _ in trees(*CODE):
        places[Path(path).stem].append(path)
    assert {n: where for n, where in places.items() if len(where) > 1 and n not in SHARED_FILE_NAMES} == {}


@pytest.mark.parametrize("folder", [*CODE, "tests", "benchmarks"])
def test_no_name_is_vague(folder: str) -> None:
    vague = [
        f"{path}:{line}: {name}"
        for path, tree in trees(folder)
        for line, name in bound_names(tree)
        if name.lstrip("_") in VAGUE and (path, name) not in ALLOWED_NAMES
    ]
    assert vague == []


def test_every_module_says_what_it_holds() -> None:
    wrong = [
        f"{path}: {problem}"
        for path, tree in trees(*CODE)
        if tree.body and (problem := complaint(ast.get_docstring(tree)))
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", CODE)
def test_every_public_docstring_stands_alone(folder: str) -> None:
    elsewhere = documented_elsewhere()
    wrong = [
        f"{path}:{node.lineno}: {node.name}: {problem}"
        for path, tree in trees(folder)
        for node in public_definitions(tree)
        if (problem := complaint(ast.get_docstring(node)))
        and not (problem == "no docstring" and node.name in elsewhere)
    ]
    assert wrong == []


@pytest.mark.parametrize("text", [None, "Of the mean.", "As Served's.", "Whose run it is.", "Return the mean"])
def test_a_fragment_is_noticed(text: str | None) -> None:
    assert complaint(text)


def test_the_glossary_has_each_word_once_in_order() -> None:
    rows = [
        line.split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.startswith("|")
    ]
    words = [row[1].strip() for row in rows[2:]]
    assert words == sorted(set(words))
    assert all(len(row) == 4 and row[2].strip() for row in rows)
