"""Changes to manifests as operations of JSON Patch (RFC 6902)."""

from __future__ import annotations

from typing import Any

Change = dict[str, Any]


def replaced(path: str, value: Any) -> Change:
    """Another value for what is there."""
    return {"op": "replace", "path": path, "value": value}


def added(path: str, value: Any) -> Change:
    """A value more; behind the last of a list where the path ends in a dash."""
    return {"op": "add", "path": path, "value": value}


def variable(container: str, number: int, name: str, value: str) -> list[Change]:
    """Another value for a variable; its place in the base is checked on the way."""
    place = f"{container}/env/{number}"
    return [
        {"op": "test", "path": f"{place}/name", "value": name},
        replaced(f"{place}/value", value),
    ]


def escaped(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
