"""What `make` and `launch.py` tell somebody whose machine is not fit for them: one line each."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.cli_runs import ROOT

SET_UP = ROOT / "tools" / "set_up.py"
# Runs a file as an older Python would up to its first check.
OLDER = "import runpy, sys; sys.version_info = (3, 10, 13); sys.argv = sys.argv[1:]; "
OLDER += "runpy.run_path(sys.argv[0], run_name='__main__')"


def said(*command: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["launch.py", "--help"], "Python 3.11 or newer is needed"),
        ([str(SET_UP), "unused", "requirements.txt"], "TensorFlow needs 3.11 to 3.13"),
    ],
)
def test_an_older_python_is_named(words: list[str], expected: str) -> None:
    status, line = said(sys.executable, "-c", OLDER, *words)
    assert status == 2
    assert line.count("\n") == 1 and expected in line and "3.10" in line
    assert not (ROOT / "unused").exists()


@pytest.mark.parametrize("file", ["launch.py", "tools/set_up.py"])
def test_every_python_3_can_read_the_check(file: str) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, 6))


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    small_disk: pathlib.Path,
) -> None:
    status, line = said(sys.executable, str(SET_UP), str(small_disk / "venv"), "requirements.txt")
    assert status == 3
    assert line.count("\n") == 1 and f"GB are free in {small_disk}" in line
    assert list(small_disk.iterdir()) == []


def test_an_index_out_of_reach_is_said_after_what_was_begun(tmp_path: pathlib.Path) -> None:
    nowhere = {"PIP_INDEX_URL": "https://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    status, lines = said(
        sys.executable, str(SET_UP), str(tmp_path / "venv"), "requirements-browser.txt", **nowhere
    )
    assert status == 3
    begun, why = lines.splitlines()
    assert "requirements-browser.txt" in begun and "MB to download" in begun
    assert "the package index cannot be reached" in why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error: failed to write: No space left on device (os error 28)", "the disk is full"),
        ("error: dns error: failed to lookup address information", "cannot be reached"),
        ("error: no wheel\n\nhint: take another platform", "hint: take another platform (see log)"),
    ],
)
def test_why_uv_failed_is_one_line(text: str, expected: str) -> None:
    script = "import sys; sys.path.insert(0, 'tools'); import set_up; "
    status, line = said(sys.executable, "-c", f"{script}set_up.explain({text!r}, 'log')")
    assert status == 3 and line.count("\n") == 1 and expected in line


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_every_locked_package_has_its_hashes(path: pathlib.Path) -> None:
    # A package and its hashes are one logical line.
    lines = path.read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert all("==" in line and " --hash=sha256:" in line for line in packages)
