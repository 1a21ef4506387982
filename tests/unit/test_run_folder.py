"""A run's folder appears whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import stat
from typing import Any

import pytest

from hpo.errors import PlaceError, RunError
from hpo.parameter import Kind, Parameter
from hpo.run import Run, SearchRequest, create_run, list_runs, open_run
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces

STUDY = spaces.a_study(SearchSpace([Parameter("n", Kind.INT, low=1, high=4, step=1)]))
TERMS = {"wanted": 4, "lease_s": 30.0, "trial_timeout_s": None, "workers": 2}


def a_request(**changes: Any) -> SearchRequest:
    fields: dict[str, Any] = {field.name: None for field in dataclasses.fields(SearchRequest)}
    fields |= {"study": "made-up", "study_digest": "0" * 64, "engine": "keras-tuner"}
    fields |= {"sampler": "random", "pruner": "none", "trials": 4, "settings": {}}
    return SearchRequest(**{**fields, **changes})


@pytest.fixture
def study_file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "made_up.py"
    path.write_text("def evaluate(hp, report): ...\n")
    return path


def test_a_run_has_all_it_needs(tmp_path: pathlib.Path, study_file: pathlib.Path) -> None:
    runs = tmp_path / "deep" / "runs"
    made = create_run(runs, "mine", a_request(), STUDY, study_file, TERMS)
    found = open_run(runs, "mine")
    assert os.listdir(runs) == ["mine"]
    assert (found.study, found.request) == (STUDY, made.request)
    assert (found.wanted, found.lease_s) == (4, 30.0)
    assert (found.folder / "study.py").read_bytes() == study_file.read_bytes()
    assert 0 <= found.seed < 2**31
    assert create_run(runs, "zero", a_request(seed=0), STUDY, study_file, TERMS).seed == 0


def test_the_token_is_the_owners_alone(tmp_path: pathlib.Path, study_file: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        runs = [
            create_run(tmp_path / "runs", name, a_request(), STUDY, study_file, TERMS)
            for name in ("one", "two")
        ]
    finally:
        os.umask(before)
    assert [stat.S_IMODE(run.token_file.stat().st_mode) for run in runs] == [0o600, 0o600]
    assert len(runs[0].token) >= 32
    assert runs[0].token != runs[1].token


def test_an_id_that_is_taken_is_refused_and_stays_as_it_is(
    tmp_path: pathlib.Path, study_file: pathlib.Path
) -> None:
    runs = tmp_path / "runs"
    first = create_run(runs, "mine", a_request(seed=1), STUDY, study_file, TERMS)
    token = first.token
    with pytest.raises(RunError, match="'mine'"):
        create_run(runs, "mine", a_request(seed=2), STUDY, study_file, TERMS)
    assert os.listdir(runs) == ["mine"]
    assert (Run(first.folder).seed, Run(first.folder).token) == (1, token)


def test_a_run_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: pathlib.Path, study_file: pathlib.Path
) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(PlaceError, match=r"cannot make .*mine"):
        create_run(runs, "mine", a_request(), STUDY, tmp_path / "gone.py", TERMS)
    assert os.listdir(runs) == []
    with pytest.raises(PlaceError, match="cannot make"):
        create_run(study_file, "mine", a_request(), STUDY, study_file, TERMS)


def test_what_a_kill_left_of_a_run_that_was_being_made_is_no_run(
    tmp_path: pathlib.Path, study_file: pathlib.Path
) -> None:
    runs = tmp_path / "runs"
    made = create_run(runs, "mine", a_request(), STUDY, study_file, TERMS)
    shutil.copytree(made.folder, runs / ".mine-2.0badcafe")
    assert [run.id for run in list_runs(runs)[0]] == ["mine"]
    with pytest.raises(RunError, match=r"no run 'mine-2' .* did you mean 'mine'"):
        open_run(runs, "mine-2")
