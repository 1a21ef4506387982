"""The modules of a person's own that a study imports: other hosts do not have them."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence


def own_modules(study: pathlib.Path, roots: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Files and packages that the file ``study`` imports from its own folder or from ``roots``.

    Also those that are imported within a function, and what they import in turn. What a
    study imports by a name that it computes cannot be seen.
    """
    folders = [study.resolve().parent, *(root.resolve() for root in roots)]
    found: dict[str, pathlib.Path] = {}
    unread = [study]
    while unread:
        for name in sorted(_imported(unread.pop())):
            path = None if name in found else _at(name, folders)
            if path is not None and name not in sys.stdlib_module_names:
                found[name] = path
                unread += path.rglob("*.py") if path.is_dir() else [path]
    return sorted(found.values())


def _at(name: str, folders: Iterable[pathlib.Path]) -> pathlib.Path | None:
    """The package or file that ``import name`` finds in the first of ``folders`` that has one."""
    for folder in folders:
        if (folder / name / "__init__.py").is_file():
            return folder / name
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    # A folder without __init__.py is a package too, if nothing that is installed is.
    bare = (folder / name for folder in folders if any((folder / name).glob("*.py")))
    return next(bare, None) if importlib.util.find_spec(name) is None else None


def _imported(path: pathlib.Path) -> Iterator[str]:
    """The names before the first dot; what is imported relatively lies in its own package."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
