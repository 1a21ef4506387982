"""Writes into docs/check.md which sampler and pruner go with which engine.

python -m tools.supported
"""

from __future__ import annotations

import pathlib

from cluster.checkup import supported

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "check.md"
BEGIN, END = "<!-- made by tools/supported.py -->\n", "<!-- end -->\n"


def table() -> str:
    """The pruners by sampler and engine, as Markdown."""
    engines = supported()
    samplers = dict.fromkeys(name for row in engines.values() for name in row)
    lines = ["| sampler | " + " | ".join(f"`{engine}`" for engine in engines) + " |"]
    lines.append("|---" * (1 + len(engines)) + "|")
    for sampler in samplers:
        cells = [", ".join(row[sampler]) or "-" for row in engines.values()]
        lines.append(f"| `{sampler}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page ``text`` with the table as the registry has it now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
