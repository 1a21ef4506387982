"""KerasTuner's oracles as samplers: the same proposals whatever is killed, and all of them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
from typing import Any

import pytest

from hpo.errors import SpaceError
from hpo.parameter import Condition, Kind, Parameter
from hpo.registry import SAMPLERS
from hpo.samplers.base import Proposal
from hpo.space import SearchSpace
from tests.conformance.test_samplers import Search
from tests.support import cli_runs as live
from tests.support import space_strategies as spaces

ORACLES = [name for name in SAMPLERS if name.startswith("kt-")]
DEEP = (Condition("deep", (True,)),)
# Asks each oracle for twenty trials and tells it of them, with the package around it or without.
ASKED = """
import json, sys
if sys.argv[1] == "whole":
    import keras_tuner
from hpo.samplers.keras_tuner.host import _HOSTS, host
from hpo.study import Study
from hpo.trial import TrialState
study, answers = Study.from_json(json.loads(sys.argv[2])), {}
for kind in _HOSTS:
    hosted = host(kind, study, 7)
    answers[kind] = [hosted.ask("0000"), hosted.ask("0001")]
    for number in range(2, 20):
        answers[kind].append(hosted.ask(f"{number:04}"))
        if f"{number - 2:04}" in hosted.oracle.ongoing_trials:
            hosted.told(f"{number - 2:04}", TrialState.COMPLETED, number % 5 / 5)
print(json.dumps([answers, "keras" in sys.modules]))
"""
# Few enough parameters that the Gaussian process takes over after nine trials.
SPACE = SearchSpace(
    [
        Parameter("deep", Kind.BOOLEAN, False),
        Parameter("units", Kind.INT, 8, low=8, high=64, step=8),
        Parameter("layers", Kind.INT, 1, low=1, high=3, step=1, conditions=DEEP),
    ]
)
STUDY = dataclasses.replace(spaces.a_study(SPACE), epochs=9)
every_oracle = pytest.mark.parametrize("name", ORACLES)


def _followed(name: str, fates: random.Random, disturb: random.Random | None) -> Search:
    """Twenty trials, three at a time, one in ten failing; ``disturb`` restarts or kills."""
    search = Search(name, STUDY)
    while len(search.records) < 20:
        if disturb and disturb.random() < 0.2:
            search.restart()
        if disturb and disturb.random() < 0.05:
            _kill_the_child()
        waits = not search.ask()
        if waits and not search.pending():
            break
        if waits or len(search.pending()) == 3:
            trial_id = fates.choice(search.pending()).trial_id
            if fates.random() < 0.1:
                search.fail(trial_id)
            else:
                search.end(trial_id, value=fates.random())
    return search


def _kill_the_child() -> None:
    """kill -9 of the process with the oracles in it."""
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "hpo.samplers.keras_tuner.host"],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in map(int, listed.stdout.split()):
        os.kill(pid, signal.SIGKILL)


@every_oracle
def test_what_is_killed_and_rebuilt_proposes_what_it_would_have(name: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    undisturbed = _followed(name, random.Random(seed), None)
    assert len(undisturbed.records) > 15
    disturbed = _followed(name, random.Random(seed), random.Random(seed))
    assert disturbed.records == undisturbed.records


@every_oracle
def test_of_two_ends_of_one_trial_the_later_counts(name: str) -> None:
    """One that failed may be tried again, and was told of before."""
    once, twice = Search(name, STUDY), Search(name, STUDY)
    for search in (once, twice):
        while len(search.records) < 14 and search.ask():
            (trial,) = search.pending()
            if search is twice:
                search.fail(trial.trial_id)
            search.end(trial.trial_id, value=float(int(trial.trial_id) % 5))
    assert len(once.records) == 14
    assert twice.points == once.points


def test_oracles_propose_the_same_without_keras_behind_them() -> None:
    """What the child loads of KerasTuner is what the whole package has."""

    def asked(of: str) -> list[Any]:
        command = [sys.executable, "-c", ASKED, of, json.dumps(STUDY.to_json())]
        output = subprocess.check_output(command, cwd=live.ROOT, text=True, timeout=120)
        answers: list[Any] = json.loads(output.splitlines()[-1])
        return answers

    (bare, keras), (whole, whole_keras) = asked("bare"), asked("whole")
    assert (keras, whole_keras) == (False, True)
    assert bare == whole
    kinds = {kind: [answer["kind"] for answer in given] for kind, given in bare.items()}
    assert all(given.count("proposal") >= 4 for given in kinds.values()), kinds


def test_child_that_dies_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search("kt-random", STUDY)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    _kill_the_child()
    with pytest.raises(Exception, match="died 3 times at trial 0000"):
        search.ask()


def test_gaussian_process_takes_over_from_chance() -> None:
    """Of sixteen units and depths the best is found again and again, unlike by chance."""
    search = Search("kt-bayesian", STUDY)
    while len(search.records) < 24:
        search.ask()
        (trial,) = search.pending()
        search.end(trial.trial_id, value=abs(int(trial.params["units"]) - 48) / 8)
    late = [point["units"] for point in search.points[12:]]
    assert sum(units in (40, 48, 56) for units in late) >= 9


def test_grid_ends_with_every_point_and_says_how_many() -> None:
    search = Search("kt-grid", STUDY)
    search.run(10**6, running=4)
    found = {spaces.frozen(point) for point in search.points}
    everything = {spaces.frozen(point) for point in SPACE.grid()}
    assert found == everything
    assert len(search.points) == len(everything) == SAMPLERS.load("kt-grid").limit(STUDY)
    assert search.points[0] == SPACE.defaults()


def test_grid_refuses_a_value_that_is_listed_twice() -> None:
    space = SearchSpace([Parameter("kind", Kind.CHOICE, "a", values=("a", "a", "b"))])
    with pytest.raises(SpaceError, match="'kind' lists a value twice"):
        SAMPLERS.load("kt-grid").check(spaces.a_study(space))


@pytest.mark.parametrize("epochs", [1, 2, 3, 9, 10, 30])
def test_hyperband_says_how_many_trials_it_makes(epochs: int) -> None:
    rate = Parameter("rate", Kind.FLOAT, 0.0, low=0.0, high=1.0)
    study = dataclasses.replace(spaces.a_study(SearchSpace([rate])), epochs=epochs)
    search = Search("kt-hyperband", study)
    search.run(10**6, running=3)
    assert len(search.records) == SAMPLERS.load("kt-hyperband").limit(study)


def test_hyperband_promotes_the_best_to_more_epochs() -> None:
    search = Search("kt-hyperband", STUDY)
    search.run(10**6, running=3)
    promoted = [r for r in search.records.values() if r.tag["promoted"]]
    assert {r.epochs for r in search.records.values()} == {1, 3, 9}
    for record in promoted:
        origin = search.records[record.tag["promoted"]]
        assert record.params == origin.params
        assert record.epochs == 3 * (origin.epochs or 0)
        rivals = [
            r
            for r in search.records.values()
            if r.tag["bracket"] == record.tag["bracket"]
            and r.tag["round"] == origin.tag["round"]
            and (r.ended_seq or math.inf) < record.asked_seq
        ]
        taken = [other.tag["promoted"] for other in promoted if other.asked_seq < record.asked_seq]
        best = min(r.value or 0.0 for r in rivals if r.trial_id not in taken)
        assert origin.value == best


def test_values_beyond_the_space_are_moved_and_the_record_says_so() -> None:
    """KerasTuner proposes 65 of a logarithmic 1..64 where the optimum lies at the upper end."""
    edge = Parameter("units", Kind.INT, 1, low=1, high=64, sampling="log")
    search = Search("kt-bayesian", spaces.a_study(SearchSpace([edge])))
    notes = []
    for number in range(10):
        answer = search.sampler.ask(f"{number:04d}", [])
        assert isinstance(answer, Proposal)
        search.study.space.validate(answer.params)
        notes.append(answer.note)
        search.take(answer)
        search.end(f"{number:04d}", value=-float(answer.params["units"]))
    assert "units 65 moved to 64" in notes


@pytest.mark.parametrize("name", ["kt-grid", "kt-bayesian", "kt-hyperband"])
def test_name_in_two_branches_is_refused_by_name(name: str) -> None:
    def units(flag: bool) -> Parameter:
        condition = Condition("deep", (flag,))
        return Parameter("units", Kind.INT, low=1, high=9 if flag else 3, conditions=(condition,))

    space = SearchSpace([SPACE.parameters[0], units(True), units(False)])
    with pytest.raises(SpaceError, match="'units' is declared under more than one condition"):
        SAMPLERS.load(name).check(spaces.a_study(space))
    SAMPLERS.load("kt-random").check(spaces.a_study(space))


ENDS = """
import random, threading, time
from hpo.samplers.base import Outcome
from hpo.trial import TrialState
from tests.conformance.test_keras_tuner_samplers import *
wide = SearchSpace([Parameter(f"x{i}", Kind.FLOAT, 0.0, low=0.0, high=1.0) for i in range(6)])
search, rng = Search(sys.argv[1], spaces.a_study(wide)), random.Random(0)
points = [wide.sample(rng) for _ in range(int(sys.argv[2]))]
search.sampler.learn([Outcome(p, TrialState.COMPLETED, p["x0"]) for p in points])
asking = threading.Thread(target=search.ask, daemon=True)
asking.start()
asking.join(float(sys.argv[3]))
listed = subprocess.run(
    ["pgrep", "-P", str(os.getpid()), "-f", "keras_tuner.host"], capture_output=True, text=True
)
print(asking.is_alive(), listed.stdout.strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("name", "known", "after_s"),
    [
        pytest.param("kt-random", 0, 120.0, id="idle"),
        # It thinks for a minute or so.
        pytest.param("kt-bayesian", 2000, 8.0, id="in thought"),
    ],
)
def test_child_ends_with_the_process_that_asked(name: str, known: int, after_s: float) -> None:
    command = [sys.executable, "-c", ENDS, name, str(known), str(after_s)]
    done = subprocess.run(command, capture_output=True, text=True)
    thinks, pid = done.stdout.split()
    assert thinks == str(known > 0)
    live.wait_until(lambda: not live.is_alive(int(pid)), "its child is gone")
