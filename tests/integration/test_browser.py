"""HParams as a person sees it: a real search of digits, in Chromium.

`make test-browser` runs this; nothing here is imported where Selenium is not installed.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from hpo.run import Run
from hpo.tensorboard.server import serve
from tests.support.cli_runs import launch

if TYPE_CHECKING:
    from tools.board import Board, Row

pytestmark = pytest.mark.browser

EPOCHS, TRIALS = 3, 8
VALUE = "best_val_accuracy"
HYPERPARAMETERS = ["units", "learning_rate", "optimizer", "momentum"]


@dataclasses.dataclass
class Seen:
    """A finished search, what `trials --json` says of it, and a browser that shows it."""

    run: Run
    trials: dict[str, Any]
    board: Board
    pictures: pathlib.Path


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Seen]:
    from tools.board import Board

    runs = tmp_path_factory.mktemp("runs")
    options = ("--trials", str(TRIALS), "--epochs", str(EPOCHS), "--seed", "5", "--id", "seen")
    done = launch("run", "digits", *options, "--runs", str(runs), timeout=200)
    assert done.returncode == 0, done.stderr
    lines = launch("trials", "seen", "--json", "--runs", str(runs)).stdout.splitlines()
    trials = {f"trial-{row['trial_id']}": row for row in map(json.loads, lines)}
    assert {row["params"]["optimizer"] for row in trials.values()} == {"adam", "sgd"}
    run = Run(runs / "seen")
    pictures = request.config.getoption("--screenshots") or tmp_path_factory.mktemp("pictures")
    with serve({"seen": run.tensorboard}) as server, Board(server.url, 2200, 1000) as board:
        yield Seen(run, trials, board, pictures)


def ids(rows: list[Row]) -> list[str]:
    return [row["Trial ID"] for row in rows]


def number(value: float) -> Any:
    """The page shows five digits."""
    return pytest.approx(value, rel=1e-4)


def test_every_cell_is_what_the_ledger_says(seen: Seen) -> None:
    rows = seen.board.open_table(TRIALS)
    assert sorted(ids(rows)) == sorted(seen.trials)
    for row in rows:
        trial = seen.trials[row["Trial ID"]]
        last = trial["history"][-1]["metrics"]
        for name in ("units", "learning_rate"):
            assert float(row[name]) == number(trial["params"][name])
        assert 10 ** float(row["log10(learning_rate)"]) == pytest.approx(
            trial["params"]["learning_rate"], rel=1e-3
        )
        assert row["optimizer"] == trial["params"]["optimizer"]
        momentum = trial["params"].get("momentum")
        assert (
            row["momentum"] == ""
            if momentum is None
            else float(row["momentum"]) == number(momentum)
        )
        assert float(row[VALUE]) == number(trial["value"])
        for name in ("val_accuracy", "val_loss", "loss", "accuracy"):
            assert float(row[name]) == number(last[name])
    seen.board.save(seen.pictures / "every-cell.png")


@pytest.mark.parametrize("direction", ["Descending", "Ascending"])
def test_the_table_sorts_by_the_objective(seen: Seen, direction: str) -> None:
    seen.board.open_table(TRIALS)
    rows = seen.board.sort(VALUE, direction)
    values = [seen.trials[name]["value"] for name in ids(rows)]
    assert values == sorted(values, reverse=direction == "Descending")
    assert len(set(values)) > 2
    seen.board.save(seen.pictures / f"{direction.lower()}.png")


def test_parallel_coordinates_have_an_axis_a_column_and_a_line_a_trial(seen: Seen) -> None:
    seen.board.open_table(TRIALS)
    axes, lines = seen.board.open_parallel_coordinates()
    assert set(axes) >= {*HYPERPARAMETERS, "log10(learning_rate)", VALUE, "val_accuracy"}
    with_momentum = [t for t in seen.trials.values() if "momentum" in t["params"]]
    # TensorBoard draws no line through a blank cell; without that axis every trial has one.
    assert lines == len(with_momentum) < TRIALS
    seen.board.save(seen.pictures / "parallel-coordinates-conditional.png")
    seen.board.toggle("momentum")
    axes, lines = seen.board.open_parallel_coordinates()
    assert "momentum" not in axes
    assert lines == TRIALS


def test_a_trial_unfolds_its_curves(seen: Seen) -> None:
    best = max(seen.trials, key=lambda name: seen.trials[name]["value"])
    seen.board.open_table(TRIALS)
    curves = seen.board.unfold(best)
    assert set(curves) >= {VALUE, "val_accuracy", "val_loss"}
    assert all(points == [EPOCHS] for points in curves.values()), curves
    seen.board.save(seen.pictures / "unfolded.png")


def test_the_pictures_of_the_readme_can_be_taken(seen: Seen) -> None:
    from tools.screenshots import take

    paths = take(seen.board, seen.run, seen.pictures)
    assert [path.name for path in paths] == ["table.png", "parallel-coordinates.png", "curves.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert all(10_000 < path.stat().st_size < 300_000 for path in paths)
