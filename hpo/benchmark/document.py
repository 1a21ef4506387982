"""A report as data, and as one HTML page, as Markdown, as JSON and as pictures for a slide."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import pathlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.errors import PlaceError
from hpo.json_numbers import finite

if TYPE_CHECKING:
    from hpo.benchmark.drawing import Picture

# A cell with more letters is words, and may take several lines.
_WORDS = 32
_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto;
       max-width: 78rem; padding: 1.5rem; }
p, figcaption { max-width: 60rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.6rem 0; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.5rem; text-align: left; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #555; vertical-align: bottom; }
td { white-space: nowrap; }
td.words { white-space: normal; min-width: 13rem; }
td:not(:first-child) { font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 0.9rem; }
"""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: ``headers`` and rows of text."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables and pictures under it, in this order."""

    title: str
    paragraphs: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()


@dataclasses.dataclass(frozen=True)
class Document:
    """A report. ``data`` is all that it is made from, as JSON."""

    title: str
    sections: Sequence[Section]
    data: Mapping[str, Any]

    @property
    def pictures(self) -> list[Picture]:
        """All its pictures in their order."""
        return [picture for section in self.sections for picture in section.pictures]

    def html(self) -> str:
        """One page that needs no other file."""
        body = "\n".join(_section_html(section) for section in self.sections)
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
            f"<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
        )

    def markdown(self) -> str:
        """The same as Markdown; pictures are the files beside it."""
        return f"# {self.title}\n\n" + "\n".join(map(_section_markdown, self.sections))

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes ``report.html``, ``report.md``, ``report.json`` and the pictures.

        What was there of an earlier report goes; the whole folder changes at once.
        """
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        files: dict[str, str | bytes] = {
            "report.html": self.html(),
            "report.md": self.markdown(),
            "report.json": json.dumps(finite(self.data), indent=1, allow_nan=False) + "\n",
            **{f"{picture.name}.png": picture.png for picture in self.pictures},
        }
        try:
            draft.mkdir(parents=True)
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                (draft / name).write_bytes(data)
            if folder.exists():
                _check_own(folder)
                shutil.rmtree(folder)
            draft.rename(folder)
        except OSError as error:
            raise PlaceError(f"cannot write the report {folder}: {error.strerror}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return [folder / name for name in files]


def _check_own(folder: pathlib.Path) -> None:
    """Raises PlaceError for a folder that holds anything but an earlier report."""
    strange = [
        path.name
        for path in folder.iterdir()
        if path.is_dir() or (path.suffix != ".png" and path.stem != "report")
    ]
    if strange:
        raise PlaceError(f"{folder} holds {strange[0]}, which is no report's: give another --out")


def _section_html(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    parts += [_grid_html(grid) for grid in section.grids]
    for picture in section.pictures:
        data = base64.b64encode(picture.svg.encode()).decode()
        caption = html.escape(picture.caption)
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return "\n".join(parts)


def _grid_html(grid: Grid) -> str:
    def cell(text: str) -> str:
        words = ' class="words"' if len(text) > _WORDS else ""
        return f"<td{words}>{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(text)}</th>" for text in grid.headers)
    rows = "\n".join(f"<tr>{''.join(map(cell, cells))}</tr>" for cells in grid.rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table></div>"
    )


def _section_markdown(section: Section) -> str:
    parts = [f"## {section.title}\n", *(f"{text}\n" for text in section.paragraphs)]
    for grid in section.grids:
        rows = [grid.headers, ["---"] * len(grid.headers), *grid.rows]
        lines = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        parts.append("\n".join(lines) + "\n")
    parts += [f"![{picture.caption}]({picture.name}.png)\n" for picture in section.pictures]
    return "\n".join(parts)
