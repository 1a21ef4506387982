"""`run --from RUN`: a search begins with what an older run found, and keeps it."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import pytest

from tests.support.cli_runs import ROOT, launch, points, read

FUNCTION = str(ROOT / "examples" / "plain_function.py")


def search(runs: pathlib.Path, run_id: str, *arguments: str) -> Any:
    return launch("run", *arguments, "--id", run_id, "--workers", "1", "--runs", str(runs))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a run of fifteen random trials."""
    folder = tmp_path_factory.mktemp("from") / "runs"
    done = search(folder, "older", FUNCTION, "--trials", "15", "--seed", "1")
    assert done.returncode == 0, done.stderr
    return folder


def test_what_was_found_counts_and_is_kept_when_the_older_run_is_deleted(
    runs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    own = tmp_path / "runs"
    shutil.copytree(runs, own)
    options = (FUNCTION, "--sampler", "tpe", "--seed", "2", "--from", "older")
    done = search(own, "whole", *options, "--trials", "8")
    assert done.returncode == 0, done.stderr
    assert "from older: 15 results" in done.stderr.splitlines()
    assert search(own, "halved", *options, "--trials", "4").returncode == 0
    shutil.rmtree(own / "older")
    more = launch("resume", "halved", "--trials", "+4", "--runs", str(own))
    assert more.returncode == 0, more.stderr
    rows = read(own, "halved", "trials")
    assert points(rows) == points(read(own, "whole", "trials"))
    assert all("optuna.samplers.TPESampler" in row["sampler_impl"] for row in rows)
    # Without the older run the first ten would be random, and others.
    alone = search(own, "alone", *options[:-2], "--trials", "8")
    assert alone.returncode == 0, alone.stderr
    assert points(read(own, "alone", "trials")) != points(rows)


def test_points_outside_the_space_are_named(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = pathlib.Path(FUNCTION).read_text()
    narrow = tmp_path / "narrow.py"
    narrow.write_text(text.replace('hp.Float("x", -5.0, 10.0)', 'hp.Float("x", 0.0, 10.0)'))
    older = read(runs, "older", "trials")
    outside = sum(row["params"]["x"] < 0 for row in older)
    assert 0 < outside < 15
    done = search(runs, "narrow", str(narrow), "--trials", "2", "--from", "older")
    assert done.returncode == 0, done.stderr
    said = f"from older: {15 - outside} results; {outside} outside the space: {outside} for 'x'"
    assert said in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (("--from", "none"), {}, "no run 'none'"),
        (("--from", "older", "--sampler", "grid"), {}, "--from does not go with sampler 'grid'"),
        (("--from", "older"), {'"loss"': '"error"'}, "--from older: its objective is loss (min)"),
        (("--from", "older"), {'"x"': '"z"'}, "none of its points lies in the space (15 for 'z')"),
    ],
)
def test_what_says_nothing_is_refused(
    runs: pathlib.Path,
    tmp_path: pathlib.Path,
    arguments: tuple[str, ...],
    changes: dict[str, str],
    said: str,
) -> None:
    text = pathlib.Path(FUNCTION).read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    study = tmp_path / "other.py"
    study.write_text(text)
    done = search(runs, "refused", str(study), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (runs / "refused").exists()
