"""The layout of docs/architecture.md, held against the code itself."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "asi_watch"

# From the bottom to the top: a module may import from its own room and from rooms before it.
ROOMS = (
    "hdr",
    "errors logs files naming brackets buffers processes",
    "images",
    "products response_files",
    "plots config frames",
    "merge_bracket calibrate_brackets",
    "live simulator",
    "pipeline",
    "cli",
)


@cache
def modules() -> dict[str, ast.Module]:
    """All modules of the package by their dotted names below it."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts)] = ast.parse(path.read_text("utf-8"))
    return found


def length(name: str) -> int:
    return len((PACKAGE / f"{name.replace('.', '/')}.py").read_text("utf-8").splitlines())


def room(module: str) -> int | None:
    first = module.split(".")[0]
    return next((n for n, names in enumerate(ROOMS) if first in names.split()), None)


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names below the package that a module imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asi_watch."):
            yield (node.module or "").removeprefix("asi_watch.")
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("asi_watch.")
                for a in node.names
                if a.name.startswith("asi_watch.")
            )


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node


def test_a_module_name_occurs_once() -> None:
    names = Counter(name.rpartition(".")[2] for name in modules())
    del names["__init__"]
    names.pop("__main__", None)
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_imports_run_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        for other in imported(tree)
        if (mine := room(name)) is not None and ((there := room(other)) is None or there > mine)
    ]
    assert wrong == []


def test_hdr_knows_arrays_only() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        if name.startswith("hdr")
        for other in imported(tree)
        if not other.startswith("hdr")
    ]
    assert wrong == []


def test_the_house_stays_small() -> None:
    lines = {name: length(name) for name in modules()}
    assert len(lines) <= 120
    assert sum(lines.values()) <= 30_500
    assert {name: count for name, count in lines.items() if count > 700} == {}


def test_functions_stay_short() -> None:
    long = {
        f"{name}:{function}": size
        for name, tree in modules().items()
        for function, node in functions(tree)
        if (size := (node.end_lineno or 0) - node.lineno + 1) > 80
    }
    assert long == {}


def undocumented() -> tuple[list[str], int]:
    """Public functions whose docstring says nothing of their arguments, and how many do."""
    without, documented = [], 0
    for name, tree in modules().items():
        for function, node in functions(tree):
            arguments = [
                a.arg
                for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                if a.arg not in ("self", "cls")
            ]
            if not arguments or any(part.startswith("_") for part in function.split(".")):
                continue
            # The help of a command documents its options.
            if any("click" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            if any(part.startswith("_") for part in name.split(".") if part != "__init__"):
                continue
            if "Parameters\n" in (ast.get_docstring(node) or ""):
                documented += 1
            else:
                without.append(f"{name}:{function}")
    return without, documented


def test_arguments_are_documented() -> None:
    without, documented = undocumented()
    share = documented / (documented + len(without))
    assert share >= 0.8, f"{share:.0%} have a Parameters section; without: {without[:40]}"


def import_share() -> float:
    """Share of the lines of import statements in the lines of code."""
    imports = code = 0
    for name, tree in modules().items():
        source = (PACKAGE / f"{name.replace('.', '/')}.py").read_text("utf-8").splitlines()
        code += sum(bool(line.strip()) and not line.strip().startswith("#") for line in source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports += (node.end_lineno or 0) - node.lineno + 1
            doc = getattr(node, "body", None)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and doc:
                first = doc[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    inside = source[first.lineno - 1 : first.end_lineno]
                    code -= sum(bool(line.strip()) for line in inside)
    return imports / code


def test_imports_are_a_small_share_of_the_code() -> None:
    assert import_share() <= 0.085
