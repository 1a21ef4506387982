"""The pictures of trials and of the points they tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from hpo.benchmark.drawing import Drawing, Looks, Picture, label, legend
from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Direction, Params, Value

# More lines than this hide one another; the best ones are drawn.
_MOST_LINES = 400


def best_so_far(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    dots: Mapping[str, Sequence[tuple[float, float]]],
    objective: str,
    looks: Mapping[str, Looks],
) -> Picture:
    """Each run's trials by when they ended, and the best of them so far."""
    drawing = Drawing()
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
    legend(drawing, axes)
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
    drawing = Drawing(max(8.0, 1.5 * (len(tunable) + 1)), 4.6)
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
            label(axes, number, height, text)
    for place in (0.0, 0.5, 1.0):
        label(axes, len(tunable), place, f"{low + place * (high - low):.4g}")
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
    drawing = Drawing(7.0, 1.4 + 0.35 * len(order))
    axes = drawing.axes[0]
    bars = axes.barh([name for name, _ in order], [share for _, share in order], color="#0072B2")
    axes.bar_label(bars, labels=[f"{share:.0%}" for _, share in order], padding=4)
    axes.set_xlim(0, max([share for _, share in order] + [0.1]) * 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", visible=False)
    return drawing.picture("importance", caption)
