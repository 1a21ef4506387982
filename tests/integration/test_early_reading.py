"""A search reads its study in a fork of a worker that has imported it anyway."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.cli_runs import launch

# Says each time that it is imported, and where it is read or run.
STUDY = """
import os, pathlib
HERE = pathlib.Path(__file__).parent
OBJECTIVE = "loss"

def note(name, what):
    with (HERE / name).open("a") as file:
        file.write(f"{what}\\n")

note("imports", os.getpid())

def evaluate(hp, report):
    note("calls", os.getpid())
    x = hp.Float("x", 0.0, 1.0)
    report(1, {"loss": x})
    return {}
"""


def search(folder: pathlib.Path, text: str, *options: str) -> tuple[int, str, str]:
    """A search of the study ``text`` for two trials by one worker."""
    (folder / "study.py").write_text(text)
    arguments = ["--trials", "2", "--workers", "1", "--seed", "1", "--id", "one", *options]
    runs = str(folder / "runs")
    done = launch("run", str(folder / "study.py"), *arguments, "--runs", runs)
    return done.returncode, done.stdout, done.stderr


def lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_study_is_imported_once_for_its_worker_and_its_reading(tmp_path: pathlib.Path) -> None:
    status, _, errors = search(tmp_path, STUDY)
    assert (status, errors) == (0, "")
    (imported,) = lines(tmp_path / "imports")
    # A reading and two trials, each in a process of its own that was forked.
    calls = lines(tmp_path / "calls")
    assert imported not in calls and len(set(calls)) == 3


def test_debug_shows_what_the_reading_prints(tmp_path: pathlib.Path) -> None:
    text = STUDY.replace("    report(", "    print('x is declared')\n    report(")
    status, output, _ = search(tmp_path, text, "--debug")
    assert status == 0 and "x is declared" in output
    assert len(lines(tmp_path / "imports")) == 2


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("    1 / 0", "ZeroDivisionError: division by zero (study.py:"),
        ("    os._exit(7)", "ended the process that read it (status 7)"),
    ],
)
def test_what_is_wrong_with_a_study_is_said_as_ever(
    tmp_path: pathlib.Path, broken: str, why: str
) -> None:
    status, _, errors = search(tmp_path, STUDY.replace("    x = ", f"{broken}\n    x = "))
    assert (status, len(errors.splitlines())) == (2, 1) and why in errors
    assert not list((tmp_path / "runs").glob("*"))
