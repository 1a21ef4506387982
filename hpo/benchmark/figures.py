"""The pictures of a benchmark: regret, ranks, what nodes were paid for, more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from hpo.benchmark.drawing import Drawing, Looks, Picture, legend
from hpo.benchmark.regret import AXES, FLOOR


def anytime(curves: Mapping[str, Any], axis: str, looks: Mapping[str, Looks]) -> Picture:
    """The incumbent's regret along an axis, a line with its interval for each method."""
    drawing = Drawing()
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
    legend(drawing, axes)
    caption = (
        f"Regret of the best so far against {AXES[axis]}, 1 the median of the space: the median "
        "over seeds with its 95 % interval"
    )
    if curves["beyond"]:
        caption += f"; {curves['beyond']} searches took longer than is shown"
    return drawing.picture(f"anytime-{axis.replace('_', '-')}", caption)


def _note_floor(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, FLOOR * 0.8), max(high, 1.2))


def regrets(methods: Sequence[Mapping[str, Any]], looks: Mapping[str, Looks]) -> Picture:
    """The regret at each part of the budget with its interval, a row for each method."""
    fractions = list(methods[0]["regret"])
    drawing = Drawing(9.0, 1.6 + 0.35 * len(methods), len(fractions))
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
    drawing = Drawing(8.0, 1.6 + 0.35 * len(order))
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
    drawing = Drawing(8.0, 1.8 + 0.35 * len(methods))
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
    legend(drawing, axes)
    return drawing.picture("shares", "What the nodes were paid for, median over seeds")


def _share(method: Mapping[str, Any], part: str) -> float:
    lost = float(method["lost"]["value"])
    if part == "training":
        return float(method["utilisation"]["value"]) - lost
    return lost if part == "lost" else float(method["waiting"]["value"])


def scaling(tasks: Sequence[Mapping[str, Any]], looks: Mapping[str, Looks]) -> Picture:
    """How long a search takes and how busy its nodes are, by how many there are."""
    drawing = Drawing(9.0, 4.2, 2)
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
    legend(drawing, drawing.axes[0])
    return drawing.picture("scaling", "The same budget on more workers, median over seeds")


def busy(traces: Mapping[str, Sequence[Sequence[float]]], looks: Mapping[str, Looks]) -> Picture:
    """The share of the nodes that ran trials, over a search's own time from start to end."""
    drawing = Drawing(8.0, 3.8)
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
    legend(drawing, axes)
    return drawing.picture("utilisation", "Utilisation over time, median over searches")
