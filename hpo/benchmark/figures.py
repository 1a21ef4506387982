"""The pictures of a report. Matplotlib is imported here and nowhere else.

Colours are Okabe's and Ito's, which colour-blind people tell apart; each line has a dash and
each point a marker of its own besides.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from hpo.benchmark.regret import AXES, FLOOR
from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Direction, Params, Value

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


class _Drawing:
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


def anytime(curves: Mapping[str, Any], axis: str, looks: Mapping[str, Looks]) -> Picture:
    """The incumbent's regret along an axis, a line with its interval for each method."""
    drawing = _Drawing()
    axes = drawing.axes[0]
    for name, band in curves["methods"].items():
        look = looks[name]
        low, middle, high = (10 ** np.array(band[key]) for key in ("low", "middle", "high"))
        axes.fill_between(curves["at"], low, high, color=look.colour, alpha=0.1, linewidth=0)
        for end in (low, high):
            # Where intervals lie upon one another their ends can still be followed.
            axes.plot(curves["at"], end, color=look.colour, linewidth=0.7, alpha=0.6)
        axes.plot(curves["at"], middle, color=look.colour, linestyle=look.dash, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("normalised regret")
    _note_floor(axes)
    _legend(drawing, axes)
    caption = (
        f"Regret of the best so far against {AXES[axis]}, 1 the median of the space: the median "
        "over seeds with its 95 % interval"
    )
    return drawing.picture(f"anytime-{axis.replace('_', '-')}", caption)


def _note_floor(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, FLOOR * 0.8), max(high, 1.2))


def _legend(drawing: _Drawing, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        drawing.figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(labels), 3), frameon=False
        )


def regrets(methods: Sequence[Mapping[str, Any]], looks: Mapping[str, Looks]) -> Picture:
    """The regret at each part of the budget with its interval, a row for each method."""
    fractions = list(methods[0]["regret"])
    drawing = _Drawing(9.0, 1.6 + 0.35 * len(methods), len(fractions))
    names = [method["name"] for method in reversed(methods)]
    highest = max(_end(m["regret"][f], "high") for m in methods for f in fractions)
    ends_of_all = FLOOR * 0.7, 1.4 * max(10**highest, 0.1)
    for axes, fraction in zip(drawing.axes, fractions, strict=True):
        for place, method in enumerate(reversed(methods)):
            found, look = method["regret"][fraction], looks[method["name"]]
            middle = 10 ** found["value"]
            ends = [10 ** _end(found, end) for end in ("low", "high")]
            axes.plot(ends, [place, place], color=look.colour, linewidth=2)
            axes.plot([middle], [place], marker=look.marker, color=look.colour, markersize=7)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(*ends_of_all)
        axes.set_title(f"{fraction} % of the budget", fontsize=10)
        axes.set_yticks(range(len(names)), names if axes is drawing.axes[0] else [])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("normalised regret")
    caption = "Regret with its 95 % interval, less is better"
    return drawing.picture("regret", caption)


def _end(interval: Mapping[str, Any], end: str) -> float:
    """An end of an interval; its value where it has none."""
    return float(interval["value"] if interval[end] is None else interval[end])


def ranks(found: Mapping[str, Any], looks: Mapping[str, Looks], over: str) -> Picture:
    """Average ranks with Nemenyi's critical difference."""
    order = sorted(found["average"].items(), key=lambda item: -item[1])
    drawing = _Drawing(8.0, 1.6 + 0.35 * len(order))
    axes = drawing.axes[0]
    best = order[-1][1]
    axes.axvspan(best, best + found["critical"], color="0.88", zorder=0)
    for place, (name, rank) in enumerate(order):
        look = looks[name]
        axes.plot([rank], [place], marker=look.marker, color=look.colour, markersize=8)
        axes.annotate(f"{rank:.2f}", (rank, place), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(order)), [name for name, _ in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(0.8, max(len(order) + 0.4, best + found["critical"] + 0.2))
    axes.set_xlabel(f"average rank over {found['blocks']} {over}, 1 is best")
    caption = (
        "Average ranks; who lies in the grey cannot be told apart from the first "
        f"(Nemenyi, critical difference {found['critical']:.2f}; Friedman p = {found['p']:.3g})"
    )
    return drawing.picture("ranks", caption)


def shares(methods: Sequence[Mapping[str, Any]]) -> Picture:
    """What the node-seconds went into: training, training that was lost, waiting."""
    drawing = _Drawing(8.0, 1.8 + 0.35 * len(methods))
    axes = drawing.axes[0]
    names = [method["name"] for method in reversed(methods)]
    left = np.zeros(len(names))
    parts = (("training", "#0072B2", ""), ("lost", "#D55E00", "//"), ("waiting", "#F0E442", ".."))
    for part, colour, hatch in parts:
        own = np.array([_share(method, part) for method in reversed(methods)])
        axes.barh(names, own, left=left, color=colour, hatch=hatch, label=part, edgecolor="0.3")
        left += own
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the node-seconds")
    axes.grid(axis="y", visible=False)
    _legend(drawing, axes)
    return drawing.picture("shares", "What the nodes were paid for, median over seeds")


def _share(method: Mapping[str, Any], part: str) -> float:
    lost = float(method["lost"]["value"])
    if part == "training":
        return float(method["utilisation"]["value"]) - lost
    return lost if part == "lost" else float(method["waiting"]["value"])


def scaling(tasks: Sequence[Mapping[str, Any]], looks: Mapping[str, Looks]) -> Picture:
    """How long a search takes and how busy its nodes are, by how many there are."""
    drawing = _Drawing(9.0, 4.2, 2)
    names = list(dict.fromkeys(m["name"] for task in tasks for m in task["methods"]))
    for axes, key, label in zip(
        drawing.axes,
        ("makespan_s", "utilisation"),
        ("seconds until the last trial ended", "share of node-seconds in training"),
        strict=True,
    ):
        for name in names:
            rows = [
                (t["workers"], m[key]) for t in tasks for m in t["methods"] if m["name"] == name
            ]
            look, x = looks[name], [count for count, _ in rows]
            middle = [found["value"] for _, found in rows]
            low, high = ([_end(found, end) for _, found in rows] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
            style = {"color": look.colour, "linestyle": look.dash, "marker": look.marker}
            axes.plot(x, middle, label=name, **style)
        axes.set_xscale("log")
        axes.set_xticks(
            [t["workers"] for t in tasks], [str(t["workers"]) for t in tasks], minor=False
        )
        axes.minorticks_off()
        axes.set_xlabel("workers")
        axes.set_ylabel(label)
    drawing.axes[0].set_yscale("log")
    drawing.axes[1].set_ylim(0, 1.03)
    _legend(drawing, drawing.axes[0])
    return drawing.picture("scaling", "The same budget on more workers, median over seeds")


def busy(traces: Mapping[str, Sequence[Sequence[float]]], looks: Mapping[str, Looks]) -> Picture:
    """The share of the nodes that ran trials, over a search's own time from start to end."""
    drawing = _Drawing(8.0, 3.8)
    axes = drawing.axes[0]
    for name, rows in traces.items():
        known = [row for row in rows if len(row)]
        if not known:
            continue
        middle, look = np.median(np.array(known), axis=0), looks[name]
        x = (np.arange(len(middle)) + 0.5) / len(middle)
        axes.plot(x, middle, color=look.colour, linestyle=look.dash, label=name)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("time from the search's beginning to its end")
    axes.set_ylabel("workers that train")
    _legend(drawing, axes)
    return drawing.picture("utilisation", "Utilisation over time, median over searches")


def best_so_far(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    dots: Mapping[str, Sequence[tuple[float, float]]],
    objective: str,
    looks: Mapping[str, Looks],
) -> Picture:
    """Each run's trials by when they ended, and the best of them so far."""
    drawing = _Drawing()
    axes = drawing.axes[0]
    for name, line in lines.items():
        look = looks[name]
        x, y = zip(*dots[name], strict=True) if dots[name] else ((), ())
        axes.plot(
            x, y, linestyle="", marker=look.marker, color=look.colour, alpha=0.35, markersize=5
        )
        x, y = zip(*line, strict=True) if line else ((), ())
        axes.step(x, y, where="post", color=look.colour, linestyle=look.dash, label=name)
    axes.set_xlabel("seconds since the search began")
    axes.set_ylabel(objective)
    _legend(drawing, axes)
    return drawing.picture(
        "anytime", f"Each trial's {objective} when it ended, and the best so far"
    )


def parallel(
    space: SearchSpace,
    tried: Sequence[tuple[Params, float]],
    objective: str,
    direction: Direction,
) -> Picture:
    """Parallel coordinates: a line for each point, the better the darker, along its values."""
    tunable = _one_a_name(space)
    drawing = _Drawing(max(8.0, 1.5 * (len(tunable) + 1)), 4.6)
    axes = drawing.axes[0]
    values = np.array([value for _, value in tried])
    ordered = np.argsort(values if direction is Direction.MAX else -values)[-_MOST_LINES:]
    low, high = _clear_ends(values, direction)
    colours = mpl.colormaps["cividis_r"]
    for rank, index in enumerate(ordered):
        params, value = tried[index]
        place = (np.clip(value, low, high) - low) / (high - low) if high > low else 0.5
        heights = [_height(p, params) for p in tunable]
        shade = colours(place if direction is Direction.MAX else 1 - place)
        last = rank == len(ordered) - 1
        axes.plot(
            range(len(tunable) + 1),
            [*heights, place],
            color="#D55E00" if last else shade,
            linewidth=2.5 if last else 1.0,
            alpha=1.0 if last else 0.6,
            zorder=3 if last else 2,
        )
    for number, parameter in enumerate(tunable):
        for height, text in _ticks(parameter):
            _label(axes, number, height, text)
    for place in (0.0, 0.5, 1.0):
        _label(axes, len(tunable), place, f"{low + place * (high - low):.4g}")
    for number in range(len(tunable) + 1):
        axes.axvline(number, color="0.4", linewidth=0.8, zorder=1)
    axes.set_xticks(range(len(tunable) + 1), [*(p.name for p in tunable), objective])
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.06)
    axes.set_xlim(-0.1, len(tunable) + 0.45)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    caption = (
        f"Parallel coordinates of {len(ordered)} points, the best one thick and orange, better "
        "ones darker; a line at the very bottom of an axis: not active"
    )
    return drawing.picture("parallel-coordinates", caption)


def _label(axes: Axes, x: float, y: float, text: str) -> None:
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


def _one_a_name(space: SearchSpace) -> list[Parameter]:
    return list({p.name: p for p in reversed(space.tunable)}.values())[::-1]


def _clear_ends(values: Any, direction: Direction) -> tuple[float, float]:
    """The ends of the axis: the worst tenth would press all others together."""
    if not len(values):
        return 0.0, 1.0
    if direction is Direction.MAX:
        return float(np.percentile(values, 10)), float(values.max())
    return float(values.min()), float(np.percentile(values, 90))


def _height(parameter: Parameter, params: Params) -> float:
    value = params.get(parameter.name)
    if value is None or not parameter.contains(value):
        return -0.1
    return parameter.to_unit(value)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.kind in (Kind.CHOICE, Kind.BOOLEAN) and (parameter.count or 0) <= 8:
        return [(parameter.to_unit(level), _text(level)) for level in parameter.levels()]
    found = [parameter.from_unit(unit) for unit in (0.0, 0.5, 1.0)]
    return [(parameter.to_unit(value), _text(value)) for value in dict.fromkeys(found)]


def _text(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def importance(found: Mapping[str, float], caption: str) -> Picture:
    """How much of the differences each parameter explains."""
    order = sorted(found.items(), key=lambda item: item[1])
    drawing = _Drawing(7.0, 1.4 + 0.35 * len(order))
    axes = drawing.axes[0]
    bars = axes.barh([name for name, _ in order], [share for _, share in order], color="#0072B2")
    axes.bar_label(bars, labels=[f"{share:.0%}" for _, share in order], padding=4)
    axes.set_xlim(0, max([share for _, share in order] + [0.1]) * 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", visible=False)
    return drawing.picture("importance", caption)
