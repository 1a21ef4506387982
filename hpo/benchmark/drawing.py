"""What every picture of a report has in common: its looks, and what becomes of a drawing.

Colours are Okabe's and Ito's, which colour-blind people tell apart; each line has a dash and
each point a marker of its own besides.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)), (0, (3, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE: Any = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",
    "figure.dpi": 100,
    # The same picture twice is the same file.
    "svg.hashsalt": "tunefleet",
}
# More lines than this hide one another; the best ones are drawn.
_MOST_LINES = 400


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture: a name for its file, what it shows, and itself as SVG and as PNG."""

    name: str
    caption: str
    svg: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Looks:
    """How one method is drawn, the same in every picture of a report."""

    colour: str
    dash: Any
    marker: str


def looks_of(names: Sequence[str]) -> dict[str, Looks]:
    """A look for each of ``names``, by their order."""
    return {
        name: Looks(
            _COLOURS[number % len(_COLOURS)],
            _DASHES[(number + number // len(_COLOURS)) % len(_DASHES)],
            _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)],
        )
        for number, name in enumerate(names)
    }


class Drawing:
    """A figure that becomes a :class:`Picture`."""

    def __init__(self, width: float = 8.0, height: float = 4.5, columns: int = 1) -> None:
        with mpl.rc_context(_STYLE):
            self.figure = Figure(figsize=(width, height), layout="constrained")
            self.axes: list[Axes] = list(self.figure.subplots(1, columns, squeeze=False)[0])

    def picture(self, name: str, caption: str) -> Picture:
        with mpl.rc_context(_STYLE):
            svg, png = io.StringIO(), io.BytesIO()
            self.figure.savefig(svg, format="svg", metadata={"Date": None})
            # It lies as it should by now; finding that out again takes half of the time.
            self.figure.set_layout_engine("none")
            self.figure.savefig(png, format="png", dpi=150)
        text = svg.getvalue()
        return Picture(name, caption, text[text.index("<svg") :], png.getvalue())


def legend(drawing: Drawing, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        drawing.figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(labels), 3), frameon=False
        )


def label(axes: Axes, x: float, y: float, text: str) -> None:
    """A small text beside a place on an axis, on white, since lines pass behind it."""
    axes.annotate(
        text,
        (x, y),
        (4, 0),
        textcoords="offset points",
        fontsize=8,
        va="center",
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
