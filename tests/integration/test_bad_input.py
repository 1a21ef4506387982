"""What is refused: one line, the right exit status, and nothing left behind."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.support.cli_runs import PATIENCE_S, STUDIES, LiveRun, begin, launch, processes_of
from tests.support.preloaded_python import PreloadedPython

SLOW = str(STUDIES / "slow.py")
HEAD = "OBJECTIVE = 'loss'\n"


def refused(
    runs: pathlib.Path, *arguments: str, status: int = 2, env: dict[str, str] | None = None
) -> str:
    """The one line that a refused command prints, after checking that nothing is left."""
    before = sorted(runs.iterdir()) if runs.exists() else []
    done = launch(*arguments, "--runs", str(runs), env=env)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert (sorted(runs.iterdir()) if runs.exists() else []) == before
    assert processes_of(str(runs)) == []
    line: str = done.stderr
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnu", "digits"), "did you mean 'run'"),
        (("run", "digit"), "did you mean 'digits'"),
        (("run", "digits", "--engine", "keras-tuned"), "did you mean 'keras-tuner'"),
        (("run", "digits", "--sampler", "randon"), "did you mean 'random'"),
        (("run", "digits", "--pruner", "non"), "did you mean 'none'"),
        (("run", "digits", "--trails", "3"), "did you mean '--trials'"),
        (("run", "digits", "--trials", "0"), "at least 1"),
        (("run", "digits", "--workers", "-1"), "at least 1"),
        (("run", "digits", "--epochs", "many"), "not a whole number"),
        (("run", "digits", "--seed", "-1"), "at least 0"),
        (("run", "digits", "--id", "No_Good"), "bad id 'No_Good'"),
        (("run", "digits", "--id", "-x"), "--id"),
        (
            ("run", "digits", "--host", "0.0.0.0", "--insecure"),
            "--insecure does not go with --host",
        ),
        (("run", "digits", "--host", "203.0.113.9"), "cannot serve at '203.0.113.9'"),
        (("run", "digits", "--host", "no such host"), "cannot serve at 'no such host'"),
        (("run", "digits", "--gpus-per-worker", "64"), "GPUs"),
        (("run",), "STUDY"),
        (("run", "nowhere/study.py"), "no study at nowhere/study.py"),
        (("status", "nothing"), "no run 'nothing'"),
        (("best", "nothing", "--json"), "no run 'nothing'"),
        (("stop", "nothing"), "no run 'nothing'"),
        (("status", "raycluster:/head:8265/x"), "bad handle 'raycluster:/head:8265/x'"),
        (("resume", "nothing"), "no run 'nothing'"),
        (("retry", "nothing", "--failed"), "no run 'nothing'"),
        (("scale", "nothing", "--workers", "2"), "no run 'nothing'"),
        (("scale", "nothing"), "--workers"),
        (("scale", "nothing", "--workers", "0"), "at least 1"),
        (("scale", "nothing", "--workers", "two"), "not a whole number"),
        (("run", "digits", "--grace", "-1"), "at least 0"),
        (("run", "digits", "--grace", "soon"), "not a number"),
        (("resume", "nothing", "--grace", "nan"), "out of range"),
        (("logs", "nothing"), "no run 'nothing'"),
        (("tensorboard", "nothing"), "no run 'nothing'"),
    ],
)
def test_what_was_typed(tmp_path: pathlib.Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(tmp_path / "runs", *arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def evaluate(hp, report:\n", "does not parse"),
        ("x = 1\n", "neither form"),
        ("def build_model(hp): pass\n", "load_data"),
        (HEAD + "raise KeyError('oops')\n", "fails on import: KeyError"),
        (HEAD + "import sys; sys.exit(3)\n", "fails on import: SystemExit"),
        (HEAD + "import os; os._exit(3)\n", "ended the process"),
        (HEAD + "def evaluate(hp, report): hp.Int('n', 1, 2)\n", "without a report"),
        (HEAD + "def evaluate(hp, report): report(1, {})\n", "no hyperparameter"),
        (HEAD + "def evaluate(hp, report): hp.Int('n', 5, 2)\n", "min_value 5 is greater"),
        (HEAD + "def evaluate(hp, report): hp.Choice('n', [None])\n", "can contain only"),
        (HEAD + "def evaluate(hp, report): hp.Choice('n', [1.5, float('nan')])\n", "'n' has nan"),
        (HEAD + "def evaluate(hp, report): hp.Int('n', -(10**20), 1)\n", "integers of 64 bits"),
        (HEAD + "def evaluate(hp, report): hp.Fixed('n', 2**63)\n", "integers of 64 bits"),
        (
            "OBJECTIVE = 'wobble'\ndef evaluate(hp, report): hp.Int('n', 1, 2); report(1, {})\n",
            "set DIRECTION",
        ),
        (
            HEAD + "def evaluate(hp, report):\n    hp.Int('n', 1, 2); hp.Int('n', 1, 3)\n",
            "declare it once",
        ),
        (
            HEAD + "GRID = {'m': [1]}\n"
            "def evaluate(hp, report): hp.Int('n', 1, 2); report(1, {})\n",
            "'m', which is not in the space",
        ),
        (HEAD + "EPOCHS = 0\ndef evaluate(hp, report): pass\n", "EPOCHS is 0"),
    ],
)
def test_what_a_study_says(tmp_path: pathlib.Path, text: str, said: str) -> None:
    study = tmp_path / "mine.py"
    study.write_text(text)
    line = refused(tmp_path / "runs", "run", str(study), "--id", "mine", "--workers", "1")
    assert said in line
    assert "mine.py" in line or "n'" in line or "GRID" in line


KERAS = """
import keras
import numpy as np
def load_data():
    x, y = np.zeros((20, 2)), np.zeros(20)
    return (x, y), (x, y)
def build_model(hp):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(hp.Int('n', 1, 2))])
"""


# What a worker of `run` does with a study before there is a run.
READ = """
import pathlib, sys
from hpo.probe import question
from hpo.study import StudyModule
question(StudyModule(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("    return model\n", "not compiled"),
        ("    model.compile('sgd', 'mse')\n    return model\n", "'val_accuracy' is not among"),
        ("    return None\n", "returned NoneType"),
        ("    raise OSError('no luck')\n", "OSError: no luck"),
    ],
)
def test_what_a_model_is(
    tmp_path: pathlib.Path, preloaded: PreloadedPython, rest: str, said: str
) -> None:
    study = tmp_path / "mine.py"
    study.write_text(KERAS + rest)
    reading = preloaded.run(READ, str(study))
    assert reading.returncode == 1
    last = reading.stderr.splitlines()[-1]
    assert last.startswith("hpo.errors.StudyError") and study.name in last and said in last


def test_a_model_that_cannot_be_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "mine.py"
    study.write_text(KERAS + "    return None\n")
    command = ("run", str(study), "--id", "mine", "--workers", "1")
    assert "returned NoneType" in refused(tmp_path / "runs", *command)


def test_a_float_without_a_step_cannot_be_a_grid(tmp_path: pathlib.Path) -> None:
    line = refused(tmp_path / "runs", "run", SLOW, "--sampler", "grid")
    assert "'x' is a float without a step" in line
    assert "GRID" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "give a list of points"),
        ("[3]", "give a list of points"),
        ('{"kind": "c", "rate": 0.5}', "point 1: 'kind' = 'c' is outside the space"),
        (
            '[{"kind": "a", "rate": 0.5}, {"kind": "b", "rate": 0.5}]',
            "point 2: no value for 'extra'",
        ),
        ('{"params": {"kind": "a", "rate": 0.5, "more": 1}}', "'more' is not in the space"),
    ],
)
def test_points_to_start_from(tmp_path: pathlib.Path, text: str, said: str) -> None:
    (tmp_path / "points.json").write_text(text)
    grid, points = str(STUDIES / "small_grid.py"), str(tmp_path / "points.json")
    assert said in refused(tmp_path / "runs", "run", grid, "--start", points)


def test_points_for_a_sampler_that_has_its_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "points.json").write_text("[]")
    options = ("--start", str(tmp_path / "points.json"), "--sampler", "grid")
    assert "does not go with sampler 'grid'" in refused(
        tmp_path / "runs", "run", "digits", *options
    )
    assert "cannot read --start" in refused(tmp_path / "runs", "run", "digits", "--start", "none")


def test_a_name_in_two_branches_of_a_hosted_sampler(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "twice.py"
    study.write_text(
        HEAD + "def evaluate(hp, report):\n"
        "    kind = hp.Choice('kind', ['a', 'b'])\n"
        "    for each, high in (('a', 3), ('b', 9)):\n"
        "        with hp.conditional_scope('kind', [each]):\n"
        "            hp.Int('units', 1, high)\n"
        "    report(1, {'loss': 1.0})\n"
    )
    said = refused(tmp_path / "runs", "run", str(study), "--sampler", "kt-grid")
    assert "'units' is declared under more than one condition" in said


def test_a_port_in_use(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(tmp_path / "runs", "run", SLOW, "--port", port, "--id", "mine")
    assert f"port {port} on 127.0.0.1 is in use" in line


def test_an_id_of_another_request(tmp_path: pathlib.Path) -> None:
    runs = tmp_path / "runs"
    first = ("run", SLOW, "--id", "mine", "--trials", "1", "--seed", "1")
    assert launch(*first, "--runs", str(runs)).returncode == 0
    line = refused(runs, *first[:-1], "2")
    assert "another request (other seed)" in line


def test_a_run_in_use_by_two_at_once(start: Callable[..., LiveRun]) -> None:
    same = ("run", SLOW, "--id", "slow", "--trials", "4")
    run = start("slow", *same, "--seed", "1", held=True)
    run.busy_worker()
    with begin(*same, "--runs", str(run.runs)) as follower:
        assert follower.stdout
        # It follows by now, and holds nothing up.
        assert follower.stdout.readline() == "run slow\n"
        run.release()
        status, _, err = run.wait()
        said = follower.communicate(timeout=PATIENCE_S)
    # The second attached: it followed the first to its end and started nothing.
    assert follower.returncode == 0, said
    assert status == 0, err
    assert len(run.read("trials")) == 4


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = launch("run", SLOW, "--runs", str(file / "runs"))
    assert done.returncode == 3
    assert "cannot make" in done.stderr


def test_a_disk_that_is_full(tmp_path: pathlib.Path, small_disk: pathlib.Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"0" * 4096)
    done = launch("run", SLOW, "--runs", str(small_disk / "runs"), "--id", "mine")
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "full" in done.stderr or "space" in done.stderr
    assert processes_of(str(small_disk)) == []


def test_a_disk_that_is_read_only(small_disk: pathlib.Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = launch("run", SLOW, "--runs", str(small_disk / "runs"), "--id", "mine")
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "Read-only" in done.stderr
    assert processes_of(str(small_disk)) == []


def test_roles_by_hand_need_all_three_variables(tmp_path: pathlib.Path) -> None:
    done = launch("run", SLOW, "--runs", str(tmp_path), env={"KERASTUNER_TUNER_ID": "chief"})
    assert done.returncode == 2
    assert "KERASTUNER_ORACLE_IP" in done.stderr
    variables = {
        "KERASTUNER_TUNER_ID": "my-chief-2",
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": "7777",
    }
    done = launch("run", SLOW, "--runs", str(tmp_path), env=variables)
    assert done.returncode == 2
    assert "contains 'chief'" in done.stderr


# Python runs a file of this name at its start: what is hidden is not found, as if not installed.
HIDING = """
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec

def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in {hidden} else find(name, path, target)

importlib.machinery.PathFinder.find_spec = find_others
"""
MISSING = "which is not installed: pip install -r requirements.txt"


@pytest.mark.parametrize(
    ("hidden", "options", "said"),
    [
        ("torch", "--sampler gp", f"needs torch, {MISSING[:-4]}-gp.txt"),
        ("optuna", "--sampler tpe", f"needs optuna, {MISSING}"),
        ("optuna", "--sampler bayesian", f"needs optuna, {MISSING}"),
        ("cmaes", "--sampler cmaes", f"needs cmaes, {MISSING}"),
        ("scipy", "--sampler qmc", f"needs scipy, {MISSING}"),
        ("optuna", "--engine optuna", f"engine optuna needs optuna, {MISSING}"),
        ("ray", "--engine ray", f"engine ray needs ray, {MISSING}"),
        ("optuna", "--engine ray --sampler ray:optuna", f"needs optuna, {MISSING}"),
    ],
)
def test_what_is_not_installed_is_refused_before_a_study_is_read(
    tmp_path: pathlib.Path, hidden: str, options: str, said: str
) -> None:
    study, hiding = tmp_path / "broken.py", tmp_path / "hiding"
    study.write_text("raise OSError('read')")
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(HIDING.format(hidden={hidden}))
    hidden_there = {"PYTHONPATH": str(hiding)}
    runs = tmp_path / "runs"
    assert said in refused(runs, "run", str(study), *options.split(), env=hidden_there)
    assert not runs.exists()
