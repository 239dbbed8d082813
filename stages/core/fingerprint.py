"""What a stage's result depends on in code: its module and all of ours that it imports."""

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = "stages"
ROOT = Path(__file__).parents[2]


@cache
def _read(module: str) -> tuple[str | None, tuple[str, ...]]:
    """Syntax tree of one of our modules, without docstrings, and our modules that it imports."""
    base = ROOT / module.replace(".", "/")
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        return None, ()
    tree = ast.parse(path.read_text("utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
            imported.add(parent)
            imported.update(f"{parent}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree), tuple(sorted(name for name in imported if name.split(".")[0] == PACKAGE))


def closure(*modules: str) -> list[str]:
    """Name `modules` and all of our modules that they import, directly or not, sorted."""
    found: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        tree, imported = _read(module)
        if tree is not None and module not in found:
            found.add(module)
            queue.extend(imported)
    return sorted(found)


@cache
def fingerprint(*modules: str) -> str:
    """Hash the code of `closure(modules)`; comments, docstrings and layout do not count.

    Parameters
    ----------
    modules
        Dotted names: a stage, and what it imports by name at run time.
    """
    digest = hashlib.sha256()
    for module in closure(*modules):
        tree, _ = _read(module)
        digest.update(f"{module}\0{tree}\0".encode())
    return digest.hexdigest()[:16]
