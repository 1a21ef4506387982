"""Tables of learning curves: there and back, what is refused, and which row stands for a point."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.benchmark.nearest import Rows
from hpo.benchmark.table import CURVES, SPACE, Table
from hpo.benchmark.table_reading import read_table
from hpo.errors import DataError
from hpo.space import SearchSpace
from hpo.trial import Direction
from tests.support import space_strategies as spaces
from tests.support import surrogate_tables as tables
from tests.support.cli_runs import ROOT, launch, read


def same(one: Table, other: Table) -> None:
    assert (one.space, one.configurations, one.direction) == (
        other.space,
        other.configurations,
        other.direction,
    )
    for name in ("metrics", "lengths", "diverged", "seconds", "overhead"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_table_comes_back_as_it_was_written(tmp_path: pathlib.Path) -> None:
    table = tables.made_up(space=tables.CONDITIONAL)
    table.write(tmp_path / "table")
    same(read_table(tmp_path / "table"), table)
    with pytest.raises(DataError, match="is there already"):
        table.write(tmp_path / "table")


def test_seconds_lengths_and_divergence_may_be_left_out(tmp_path: pathlib.Path) -> None:
    table = tables.made_up(5, seconds=None)
    table.write(tmp_path / "table")
    damage(tmp_path / "table", lambda arrays: [arrays.pop("lengths"), arrays.pop("diverged")])
    same(read_table(tmp_path / "table"), table)
    assert [step.seconds for step in table.curve(0, 0)] == [1.0] * 4


def damage(folder: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Writes the archive in ``folder`` anew after ``change``."""
    with np.load(folder / CURVES) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(folder / CURVES, **arrays)


def _set(name: str, place: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][place] = value

    return change


def _point(row: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        texts = arrays["configurations"].tolist()
        texts[row] = json.dumps(json.loads(texts[row]) | values)
        arrays["configurations"] = np.array(texts)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("metrics", (3, 1, 2, 0), np.nan), "row 3: seed 1, step 3 is missing: loss is nan"),
        (_set("metrics", (0, 0, 0, 0), np.inf), "row 0: seed 0, step 1 is missing: loss is inf"),
        (_set("seconds", (2, 0, 1), -1.0), r"row 2: seed 0, step 2 took -1.0 seconds"),
        (_set("lengths", (4, 1), 9), "row 4: seed 1 has 9 steps: a curve has from 1 to 4"),
        (_set("lengths", (4, 1), 0), "row 4: seed 1 has 0 steps"),
        (_point(1, rate=7.0), "row 1: 'rate' = 7.0 is outside the space: allowed is float"),
        (_point(1, other=7.0), "row 1: 'other' is not in the space"),
        (
            lambda a: a.update(metrics=a["metrics"][:, :, :3]),
            r"'metrics' has the shape \(6, 2, 3, 1\), but .* make it \(6, 2, 4, 1\)",
        ),
        (
            lambda a: _set("configurations", 5, a["configurations"][2])(a),
            "row 5: is the configuration of row 2 again",
        ),
        (lambda a: a.pop("metrics"), "lacks the array 'metrics'"),
        (lambda a: a.update(configurations=np.array(["x"] * 6)), "row 0: is not a JSON object"),
        (lambda a: a.update(metrics=np.full((6, 2, 4, 1), "x")), "'metrics' holds no numbers"),
    ],
)
def test_what_is_not_whole_is_refused_with_its_row(
    tmp_path: pathlib.Path, change: Any, message: str
) -> None:
    tables.made_up(6).write(tmp_path / "table")
    damage(tmp_path / "table", change)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / "table")
    assert str(tmp_path / "table" / CURVES) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 2 and this program reads version 1"),
        ({"format": "other"}, 'is no table: its "format" must be "tunefleet-table"'),
        ({"objective": "accuracy"}, "objective 'accuracy' is none of the metrics: loss"),
        ({"direction": "up"}, "direction is 'up': give 'max' or 'min'"),
        ({"space": [{"name": "x"}]}, "the space of .* is not as docs/tables.md says"),
        ({"steps": 5}, "'metrics' has the shape"),
    ],
)
def test_what_does_not_fit_its_description_is_refused(
    tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    tables.made_up(6).write(tmp_path / "table")
    path = tmp_path / "table" / SPACE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "table")


def test_a_folder_without_a_table_and_a_damaged_archive_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="no table in"):
        read_table(tmp_path)
    tables.made_up(6).write(tmp_path / "table")
    archive = tmp_path / "table" / CURVES
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(DataError, match="is no npz archive"):
        read_table(tmp_path / "table")


def test_a_curve_that_diverged_ends_in_a_nan_and_has_no_value() -> None:
    table = tables.made_up(3)
    table.diverged[1, 0], table.lengths[1, 0] = True, 2
    steps = list(table.curve(1, 0))
    assert [step.number for step in steps] == [1, 2, 3]
    assert np.isnan(steps[-1].metrics["loss"])
    assert np.isnan(table.values()[1, 0])
    assert table.values()[1, 1] == table.metrics[1, 1].min()


@settings(max_examples=25, deadline=None)
@given(space=spaces.spaces(), seed=st.integers(0, 9))
def test_each_point_of_any_space_is_its_own_nearest_row(space: SearchSpace, seed: int) -> None:
    table = tables.sampled(space, seed)
    rows = Rows(space, table)
    order = np.random.default_rng(seed).permutation(len(table))
    assert [rows.take(table[row]) for row in order] == list(order)
    assert rows.left == 0


def test_a_used_row_gives_way_to_the_nearest_that_is_not() -> None:
    points = [
        {"rate": rate, "momentum": 0.5, "kind": kind} for kind in "ab" for rate in (0.001, 0.01, 1)
    ]
    rows = Rows(tables.SPACE, points)
    near = {"rate": 0.009, "momentum": 0.5, "kind": "a"}
    # By the logarithm, as the space has it; another kind is as far as can be.
    assert [rows.take(near) for _ in range(6)] == [1, 0, 2, 4, 3, 5]


def test_record_trains_each_configuration_with_each_seed(tmp_path: pathlib.Path) -> None:
    out, runs = tmp_path / "table", tmp_path / "runs"
    words = ["record", "tests/support/studies/curves.py", "--configurations", "5", "--seeds", "2"]
    words += ["--out", str(out), "--runs", str(runs), "--id", "rec"]
    done = launch(*words)
    assert done.returncode == 0, done.stderr
    table = read_table(out)
    assert (table.rows, table.seeds) == (5, 2)
    for seed in range(2):
        trials = read(runs, f"rec-s{seed}", "trials")
        assert [trial["params"] for trial in trials] == list(table.configurations)
        for row, trial in enumerate(trials):
            told = [step["metrics"] for step in trial["history"]]
            curve = list(table.curve(row, seed))
            assert [step.metrics for step in curve] == [
                {name: metrics[name] for name in table.metric_names} for metrics in told
            ]
            assert 0 < sum(step.seconds for step in curve) < 60
    # The same again finds all its runs done and does not write over what is there.
    again = launch(*words)
    assert again.returncode == 2 and "is there already" in again.stderr
    other = launch(*words[:-2], "--id", "rec", "--seed", "3", "--out", str(tmp_path / "new"))
    assert other.returncode == 2 and "other seed" in other.stderr
    once_more = launch(*words[:-6], "--out", str(tmp_path / "new"), *words[-4:])
    assert once_more.returncode == 0, once_more.stderr
    same(read_table(tmp_path / "new"), table)


def test_record_refuses_points_that_depend_on_results(tmp_path: pathlib.Path) -> None:
    done = launch("record", "digits", "--points", "tpe", "--out", str(tmp_path / "t"))
    assert done.returncode == 2
    assert "--points tpe: its points depend on results: take random, grid, qmc" in done.stderr


def test_either_direction_has_its_best(tmp_path: pathlib.Path) -> None:
    low, high = tables.made_up(), tables.made_up(direction=Direction.MAX)
    np.testing.assert_array_equal(low.values(), -high.values())


def test_the_example_of_the_docs_is_a_table(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "tables.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/tables.md", "exec"), {})
    table = read_table(tmp_path / "tables" / "parabola")
    assert (table.rows, table.seeds, table.steps, table.seconds) == (50, 1, 5, None)
    assert table.values().argmin() == 15


def test_the_shipped_table_is_whole() -> None:
    table = read_table(ROOT / "benchmarks" / "tables" / "cnn_dropout")
    assert (table.rows, table.seeds, table.steps) == (64, 2, 10)
    assert not table.diverged.any() and (table.lengths == 10).all()
    # Trained, and not made up: later epochs are better, and take about as long as the others.
    objective = table.metrics[..., table.metric_names.index(table.objective)]
    assert objective[..., -1].mean() > objective[..., 0].mean() + 0.05
