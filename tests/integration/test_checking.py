"""The verbs that look before anything runs: `check` and `doctor`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from hpo.registry import PRUNERS
from tests.support.cli_runs import ROOT, launch
from tests.support.written_runs import (
    strict,
)

CONDITIONS = """
OBJECTIVE = "loss"
GRID = {"rate": [0.1, 0.2, 0.2]}

def evaluate(hp, report):
    kind = hp.Choice("kind", ["a", "b"])
    hp.Float("rate", 0.0, 1.0)
    with hp.conditional_scope("kind", ["c"]):
        hp.Boolean("never")
    with hp.conditional_scope("kind", ["a"]):
        hp.Int("depth", 1, 3)
        with hp.conditional_scope("depth", [9]):
            hp.Boolean("neither")
        with hp.conditional_scope("depth", [2, 9]):
            hp.Boolean("sometimes")
    report(1, {"loss": 1.0})
"""


def test_check_describes_a_study(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "conditions.py"
    path.write_text(CONDITIONS)
    done = launch("check", str(path), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = strict(done.stdout)
    documented = (ROOT / "docs" / "check.md").read_text().partition("## `launch.py doctor")[0]
    assert all(f"`{name}`" in documented for name in (*found, *found["space"][0]))
    assert (found["study"], found["form"]) == ("conditions", "function")
    assert (found["objective"], found["direction"]) == ("loss", "min")
    assert found["space"][0] == {
        "name": "kind",
        "kind": "choice",
        "values": "one of 'a', 'b'",
        "conditions": [],
        "default": "a",
        "levels": 2,
    }
    by_name = {row["name"]: row for row in found["space"]}
    assert by_name["rate"]["levels"] == 2
    assert by_name["depth"]["conditions"] == [{"name": "kind", "values": ["a"]}]
    assert found["inactive"] == ["never", "neither"]
    # Of kind a: depth 1 and 3 once each, depth 2 twice; of kind b one; all at two rates.
    assert found["grid"] == {"points": 10, "without_levels": []}
    assert found["warnings"] == []
    assert found["supported"]["keras-tuner"]["grid"] == list(PRUNERS)


def test_check_for_a_person_says_what_a_grid_lacks() -> None:
    done = launch("check", "examples/plain_function.py")
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "loss, min",
        "float -5.0..10.0",
        "fast is True",
        "GRID = {'x': [...], 'y': [...]}",
    ):
        assert part in done.stdout
    assert len(done.stdout.splitlines()) < 40


UNKNOWN_METRIC = """
OBJECTIVE = "height"

def evaluate(hp, report):
    report(1, {"height": hp.Float("x", 0.0, 1.0)})
"""
LATE_METRIC = """
def evaluate(hp, report):
    hp.Float("x", 0.0, 1.0)
    report(1, {"warmth": 0.5})
    return {"val_accuracy": 0.5}
"""


def test_check_and_run_warn_of_an_objective_that_is_not_in_the_first_report(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "late.py"
    path.write_text(LATE_METRIC)
    done = launch("check", str(path), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (warning,) = strict(done.stdout)["warnings"]
    assert "gives warmth and not the objective 'val_accuracy'" in warning
    assert warning.split()[-1] in launch("check", str(path)).stdout
    # It is no reason to refuse a search, in which the objective may still come.
    done = launch("run", str(path), "--trials", "1", "--runs", str(tmp_path / "runs"))
    assert (done.returncode, done.stderr) == (0, f"launch.py: {warning}\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\n", "neither form"),
        ("x = (\n", "does not parse"),
        (UNKNOWN_METRIC, "DIRECTION"),
        (LATE_METRIC.replace("(1,", "(0,"), "start at 1"),
        (LATE_METRIC.replace("0.5", "'much'"), "not a number"),
    ],
)
def test_check_refuses_what_cannot_be_searched(tmp_path: pathlib.Path, text: str, why: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    done = launch("check", str(path), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr and len(done.stderr.splitlines()) == 1


def test_doctor_knows_this_machine(tmp_path: pathlib.Path) -> None:
    done = launch("doctor", "--json", "--runs", str(tmp_path / "new" / "runs"))
    found = strict(done.stdout)
    documented = (ROOT / "docs" / "check.md").read_text().partition("## `launch.py doctor")[2]
    assert all(f"`{name}`" in documented for name in found)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["disk"]["runs"]["writable"] is True and found["loopback"] is True
    assert all(row["installed"] for row in found["packages"])
    assert done.returncode == bool(found["missing"])
    assert not (tmp_path / "new").exists()


def test_doctor_names_what_is_missing_and_what_is_not_as_pinned(tmp_path: pathlib.Path) -> None:
    metadata = tmp_path / "rich-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: rich\nVersion: 0.0.1\n")
    environ = {"PYTHONPATH": str(tmp_path), "TUNEFLEET_DATA_DIR": str(tmp_path)}
    done = launch("doctor", "--json", env=environ)
    found = strict(done.stdout)
    assert done.returncode == 1
    assert any("Fashion-MNIST" in text and str(tmp_path) in text for text in found["missing"])
    assert any("rich is 0.0.1" in text for text in found["warnings"])
    text = launch("doctor", env=environ)
    assert text.returncode == 1 and "rich is 0.0.1" in text.stdout


def test_doctor_downloads_nothing(tmp_path: pathlib.Path) -> None:
    code = (
        "import pathlib, sys\nfrom hpo import data\n"
        "data.DEBIAN_FOLDER = pathlib.Path(sys.argv[1]) / 'none'\n"
        "from cluster.machine import examine\n"
        "print(examine(pathlib.Path(sys.argv[1]))['fashion_mnist']['lack'])\n"
    )
    environ = {**os.environ, "KERAS_HOME": str(tmp_path / "keras")}
    environ.pop("TUNEFLEET_DATA_DIR", None)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert "not on this machine" in done.stdout
    assert list(tmp_path.iterdir()) == []
