"""What `.ci/run` and the suites that may try again say of what passed, failed or did not fit."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from tests.support.cli_runs import ROOT

MAKE = """#!/bin/sh
echo "$1" >>"$MADE"
case " $BROKEN " in *" $1 "*) exit 2 ;; esac
"""
FLAKY = """
import pathlib

def test_that_fails_at_first(tmp_path_factory):
    seen = pathlib.Path(__file__).with_name("seen")
    first, _ = not seen.exists(), seen.touch()
    assert not first

def test_that_fails_always():
    assert {always}
"""


def run_ci(folder: pathlib.Path, **environment: str) -> tuple[int, str, list[str]]:
    """The status and the output of `.ci/run` with a `make` that only notes its target."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    build = folder / "tests" / "k8s" / "build.sh"
    build.parent.mkdir(parents=True)
    build.write_text("#!/bin/sh\n")
    (folder / "make").write_text(MAKE)
    (folder / "make").chmod(0o755)
    made = folder / "made"
    own = {"PATH": f"{folder}:{os.environ['PATH']}", "MADE": str(made), "BROKEN": ""}
    done = subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
    )
    targets = made.read_text().split() if made.exists() else []
    return done.returncode, done.stdout, targets


def test_every_part_runs_and_its_time_is_said(tmp_path: pathlib.Path) -> None:
    status, said, targets = run_ci(tmp_path)
    assert status == 0, said
    assert targets[:4] == ["test", "lint", "test-browser", "test-ray"]
    assert all(f"took make {target}: " in said for target in targets)


def test_a_part_that_fails_is_named_and_the_others_run(tmp_path: pathlib.Path) -> None:
    status, said, targets = run_ci(tmp_path, BROKEN="test-ray lint")
    assert status == 1
    assert "FAILED: make lint: status 2" in said
    assert "NOT GREEN, and not required yet: make test-ray: status 2" in said
    assert targets[:4] == ["test", "lint", "test-browser", "test-ray"]


def test_a_part_that_does_not_fit_is_left_out_and_named(tmp_path: pathlib.Path) -> None:
    status, said, targets = run_ci(tmp_path / "some", CI_CLOCK_S="450")
    assert status == 0, said
    assert "test-ray" not in targets
    assert "LEFT OUT: make test-ray: it takes some " in said
    # Without the main part it is no pass.
    status, said, _ = run_ci(tmp_path / "none", CI_CLOCK_S="10")
    assert status == 1
    assert "FAILED: make test: no time" in said and "FAILED: make lint: no time" in said


def test_a_cluster_that_fails_stops_no_change_yet(tmp_path: pathlib.Path) -> None:
    status, said, _ = run_ci(tmp_path, BROKEN="test-ray test-ray-vms test-k8s")
    assert status == 0 and "NOT GREEN, and not required yet: make test-ray: status 2" in said


def test_what_failed_runs_once_more_and_that_is_said(tmp_path: pathlib.Path) -> None:
    def attempt(always: bool) -> tuple[int, str]:
        (tmp_path / "seen").unlink(missing_ok=True)
        file = tmp_path / "test_flaky.py"
        file.write_text(FLAKY.format(always=not always))
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", str(file)]
        done = subprocess.run(
            ["sh", str(ROOT / "tools" / "retry_failed.sh"), *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    status, said = attempt(always=False)
    assert status == 0, said
    assert "RUN ONCE MORE, alone" in said and "test_that_fails_at_first" in said
    status, said = attempt(always=True)
    assert status == 1 and "1 failed, 1 passed" in said
