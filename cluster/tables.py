"""What the reading verbs print: JSON for programs, tables and words for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from hpo.json_numbers import finite

_STYLES = {
    "COMPLETED": "green",
    "DONE": "green",
    "RUNNING": "cyan",
    "PRUNED": "yellow",
    "STOPPED": "yellow",
    "FAILED": "red",
    "WAITING": "dim",
}


def print_json(value: Any) -> None:
    """One line of JSON; a number that JSON lacks (NaN, infinity) becomes null."""
    print(json.dumps(finite(value), allow_nan=False), flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at ``stream``, on something that can do more than lines."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A row a line under ``headers``; colours only for a person."""
    if is_terminal(sys.stdout):
        import rich

        rich.print(rich_table(headers, rows))
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """The table as rich draws it; states have their colours."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # As Text, since rich takes brackets in a plain string for its own markup.
        table.add_row(*(Text(cell, _STYLES.get(cell.partition(" ")[0], "")) for cell in row))
    return table


def print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Names with what is to be said of each, one a line."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())
    sys.stdout.flush()


def number(value: Any) -> str:
    """A value in as many digits as a person reads; "" for None."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def assignments(values: Mapping[str, Any]) -> str:
    """Parameters or metrics as ``name=value``."""
    return " ".join(f"{name}={number(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """A time span in the two units that matter."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in GB."""
    return f"{count / 1e9:.1f} GB"


def counted(counts: Mapping[str, int]) -> str:
    """What there is more than none of: ``CODE 2, OOM 1``."""
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)
