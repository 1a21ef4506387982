"""Pictures of a run in TensorBoard: its table, its parallel coordinates, its curves.

    python tools/screenshots.py RUN [--runs DIR] [--out DIR]

Needs requirements-browser.txt and, as `make test-browser` installs it, Chromium.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpo.run import Run, open_run  # noqa: E402
from hpo.tensorboard.columns import experiment  # noqa: E402
from hpo.tensorboard.server import serve  # noqa: E402
from tools.board import PANE, Board, Row  # noqa: E402

# The room that TensorBoard 2.21 gives to the header, a row and a column of its table, in CSS
# pixels, and the share of the window that is left of the filters.
_HEAD, _ROW, _COLUMN, _SHARE = 186, 36, 160, 0.79


def main() -> None:
    """Takes the pictures of the run that was named."""
    parser = argparse.ArgumentParser(description="Pictures of a run in TensorBoard.")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs", metavar="DIR")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/images", metavar="DIR")
    args = parser.parse_args()
    run = open_run(args.runs, args.run)
    with serve({run.id: run.tensorboard}) as server, Board(server.url) as board:
        for path in take(board, run, args.out):
            print(path)


def take(board: Board, run: Run, out: pathlib.Path) -> list[pathlib.Path]:
    """Saves three pictures of ``run`` in ``out``; the board stays at the last one's page."""
    paths = [out / f"{name}.png" for name in ("table", "parallel-coordinates", "curves")]
    tags = [info.name.tag for info in experiment(run.study).metric_infos]
    best, *others = tags
    rows = board.open_table(1)
    board.toggle(*others[1:])
    rows = board.sort(best, "Descending" if run.study.direction == "max" else "Ascending")
    board.resize(round(_COLUMN * len(rows[0]) / _SHARE), _HEAD + _ROW * len(rows))
    board.save(paths[0], PANE)
    board.resize(1400, 880)
    board.toggle(others[0], *_without_a_line(rows))
    board.open_parallel_coordinates()
    board.colour_by(best)
    board.save(paths[1], PANE)
    board.resize(1300, 860)
    shown = "|".join(map(re.escape, tags[:4]))
    board.open_time_series(f"^({shown})$", "^trial")
    board.leave_room_for_curves()
    board.save(paths[2])
    return paths


def _without_a_line(rows: list[Row]) -> list[str]:
    """Columns to leave out of the plot: in favour of a logarithm, or since a cell is blank.

    TensorBoard draws no line for a trial that lacks a value on any of the axes.
    """
    columns = [name for name in rows[0] if name not in ("Trial ID", "Show Metrics")]
    blank = {name for name in columns if any(not row[name] for row in rows)}
    logarithms = {name.removeprefix("log10(")[:-1] for name in columns if name[:5] == "log10"}
    return [name for name in columns if name in blank | logarithms]


if __name__ == "__main__":
    main()
