"""Every study that comes with the project: found in its folder, never listed here."""

from __future__ import annotations

import json
import pathlib

import pytest

from hpo.discovery import discover
from hpo.link import TrialOrder
from hpo.runner import run_trial
from hpo.study import STUDIES_DIR, StudyModule
from tests.support.cli_runs import launch
from tests.support.preloaded_python import PreloadedPython
from tests.support.published_spaces import POINTS, SPACES
from tests.support.trial_listener import Listener

STUDIES = sorted(STUDIES_DIR.glob("[!_]*.py"), key=lambda path: path.stem)
STARTS = sorted(STUDIES_DIR.glob("*.json"))


@pytest.fixture(params=STUDIES, ids=lambda path: path.stem)
def module(request: pytest.FixtureRequest) -> StudyModule:
    return StudyModule(request.param)


# What `check --json` prints, computed without a process that imports TensorFlow for it.
CHECK = """
import json, pathlib, sys
from cluster.checkup import checkup
from hpo.probe import Reading, question
from hpo.study import StudyModule
path = pathlib.Path(sys.argv[1])
print(json.dumps(checkup(Reading.from_json(question(StudyModule(path))), path)))
"""


def test_check_finds_a_study_by_its_name() -> None:
    done = launch("check", "cnn-dropout", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["study"], found["form"]) == ("cnn-dropout", "keras")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_sound_and_a_grid_covers_it(
    path: pathlib.Path, preloaded: PreloadedPython
) -> None:
    done = preloaded.run(CHECK, str(path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["form"], found["objective"]) == ("keras", "val_accuracy")
    assert found["grid"]["points"] and found["inactive"] == []


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_the_published_one_where_that_is_stated(name: str) -> None:
    module = StudyModule(STUDIES_DIR / f"{name}.py")
    space = discover(module.build_model)
    assert {p.name for p in space.parameters} == set(SPACES[name])
    for parameter in space.parameters:
        stated = SPACES[name][parameter.name] or {}
        assert {field: getattr(parameter, field) for field in stated} == stated
    for point in POINTS[name]:
        space.validate(point)


def test_cnn_dense_untuned_is_the_published_network() -> None:
    space = discover(StudyModule(STUDIES_DIR / "cnn_dense.py").build_model)
    assert [space.defaults()] == POINTS["cnn_dense"]
    # So small that a grid over all of it is an evening's work at most.
    assert space.grid().size <= 50


@pytest.mark.parametrize("path", STARTS, ids=lambda path: path.stem)
def test_points_to_start_from_belong_to_their_study(path: pathlib.Path) -> None:
    study = max((s for s in STUDIES if path.stem.startswith(s.stem)), key=lambda s: len(s.stem))
    space = discover(StudyModule(study).build_model)
    points = json.loads(path.read_text())
    assert points
    for point in points:
        space.validate(point)


def test_the_default_point_trains(module: StudyModule, tmp_path: pathlib.Path) -> None:
    space = discover(module.build_model)
    order = TrialOrder(
        trial_id="0000",
        params=space.defaults(),
        seed=1,
        split_seed=2,
        objective=module.objective,
        direction=module.direction,
        epochs=2,
        train_examples=300,
        space=space,
    )
    listener = Listener()
    outcome = run_trial(module, order, listener, tmp_path)
    reports = listener.reports
    assert outcome.failure is None, outcome.error
    assert outcome.weights
    first, second = reports
    assert module.objective in first.metrics
    assert second.metrics["loss"] < first.metrics["loss"]
