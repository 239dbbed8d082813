"""Hash the code that a stage depends on: its module and all project modules that it imports."""

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = "stages"
ROOT = Path(__file__).parents[2]


@cache
def _parse_module(module: str) -> tuple[str | None, tuple[str, ...]]:
    """Return a project module's syntax tree without docstrings, and the project modules it imports.

    The tree is None if the module does not exist.
    """
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


def import_closure(*modules: str) -> list[str]:
    """List `modules` and all project modules that they import, directly or indirectly, sorted."""
    closure: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        tree, imported = _parse_module(module)
        if tree is not None and module not in closure:
            closure.add(module)
            queue.extend(imported)
    return sorted(closure)


@cache
def fingerprint(*modules: str) -> str:
    """Hash the code of `import_closure(modules)`; comments, docstrings and layout are ignored.

    Parameters
    ----------
    modules
        Dotted names: a stage, and the modules that it imports by name at run time.
    """
    digest = hashlib.sha256()
    for module in import_closure(*modules):
        tree, _ = _parse_module(module)
        digest.update(f"{module}\0{tree}\0".encode())
    return digest.hexdigest()[:16]
