"""Whether what a search needs is installed: looked up before it starts, and imported by nobody."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.errors import UsageError

REMEDY = "pip install -r requirements.txt"


def check_installed(what: str, packages: Sequence[str], remedy: str = REMEDY) -> None:
    """Raises UsageError, saying what to do, where ``what`` lacks one of its ``packages``."""
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{what} needs {' and '.join(missing)}, which {are} not installed: {remedy}"
        )
