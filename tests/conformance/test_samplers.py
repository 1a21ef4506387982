"""What every registered sampler promises, and what random and grid promise besides."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.parameter import Condition, Kind, Parameter
from hpo.registry import SAMPLERS
from hpo.samplers.base import DEFAULT_TRIALS, Exhausted, Proposal, Sampler, seed_of
from hpo.samplers.start import in_space, read_points
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import Params, TrialRecord, TrialState
from tests.support import space_strategies as spaces
from tests.support.cli_runs import launch, read
from tests.support.cli_runs import points as tried

# The samplers that pay no heed to results: their points do not depend on what runs.
HEEDLESS = [
    name for name in SAMPLERS if name in ("random", "grid", "qmc", "optuna:random", "optuna:grid")
]


def each(names: Iterable[str]) -> Any:
    """A test for each sampler; `gp` only where PyTorch is, which `make test-gp` sees to."""
    rows = [pytest.param(n, marks=pytest.mark.gp) if n == "gp" else n for n in names]
    return pytest.mark.parametrize("name", rows)


every_sampler = each(SAMPLERS)
some = settings(max_examples=25, deadline=None)

DEEP = (Condition("kind", ("deep",)),)
SPACE = SearchSpace(
    [
        Parameter("kind", Kind.CHOICE, "flat", values=("flat", "deep")),
        Parameter("units", Kind.INT, low=1, high=64, sampling="log"),
        Parameter("rate", Kind.FLOAT, 0.001, low=0.001, high=0.1, sampling="log"),
        Parameter("layers", Kind.INT, low=2, high=5, step=1, conditions=DEEP),
        Parameter("skip", Kind.BOOLEAN, False, conditions=DEEP),
        Parameter("classes", Kind.FIXED, 10),
    ]
)
STUDY = spaces.a_study(SPACE, grid={"rate": [0.001, 0.01, 0.1], "units": [1, 8, 64]})
# Optuna's own grid has no conditions.
FLAT = spaces.a_study(
    SearchSpace([p for p in SPACE.parameters if not p.conditions]), grid=STUDY.grid
)


def study_for(name: str) -> Study:
    return FLAT if name == "optuna:grid" else STUDY


class Search:
    """A search without workers: what a coordinator would keep of one, and its sampler."""

    def __init__(self, name: str, study: Study | None = None, seed: int = 7) -> None:
        self.name, self.study, self.seed = name, study or study_for(name), seed
        self.records: dict[str, TrialRecord] = {}
        self._seq = 0
        self.sampler = self._made()

    @property
    def points(self) -> list[Params]:
        """What was tried, in order."""
        return [record.params for record in self.records.values()]

    def pending(self) -> list[TrialRecord]:
        return [record for record in self.records.values() if not record.state.ended]

    def ask(self) -> bool:
        """One more trial; False where the sampler has none now."""
        trial_id = f"{len(self.records):04d}"
        answer = self.sampler.ask(trial_id, self.pending())
        if not isinstance(answer, Proposal):
            return False
        self.take(answer)
        return True

    def take(self, proposal: Proposal) -> None:
        """A proposal becomes a trial that runs."""
        trial_id = f"{len(self.records):04d}"
        self.records[trial_id] = a_record(trial_id, proposal, self._next())

    def end(self, trial_id: str, value: float) -> None:
        self._end(trial_id, state=TrialState.COMPLETED, value=value, best_step=1)

    def fail(self, trial_id: str) -> None:
        self._end(trial_id, state=TrialState.FAILED)

    def prune(self, trial_id: str, value: float) -> None:
        self._end(trial_id, state=TrialState.PRUNED, value=value, best_step=1)

    def _end(self, trial_id: str, **how: Any) -> None:
        ended = dataclasses.replace(self.records[trial_id], **how, ended_seq=self._next())
        self.records[trial_id] = ended
        self.sampler.told(ended)

    def run(self, trials: int, running: int = 1) -> list[Params]:
        """Asks for so many trials, of which at most ``running`` have not ended; the points."""
        while len(self.records) < trials:
            waits = not self.ask()
            if waits and not self.pending():
                break
            if waits or len(self.pending()) >= running:
                first = self.pending()[0].trial_id
                self.end(first, value=float(int(first) % 5))
        return self.points

    def restart(self) -> None:
        """A new sampler that knows only what went through the ledger."""
        self.sampler = self._made()
        self.sampler.restore(list(map(_through_the_ledger, self.records.values())))

    def _made(self) -> Sampler:
        made: Sampler = SAMPLERS.load(self.name)(self.study, self.seed)
        return made

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def a_record(trial_id: str, proposal: Proposal, asked_seq: int) -> TrialRecord:
    return TrialRecord(
        trial_id=trial_id,
        attempt=1,
        state=TrialState.RUNNING,
        params=proposal.params,
        tag=proposal.tag,
        epochs=proposal.epochs,
        engine="none",
        sampler="any",
        sampler_impl="any",
        seed=0,
        study_digest="0" * 64,
        asked_seq=asked_seq,
    )


def _through_the_ledger(record: TrialRecord) -> TrialRecord:
    stored = {name: json.dumps(getattr(record, name)) for name in ("params", "tag")}
    return dataclasses.replace(record, **{name: json.loads(text) for name, text in stored.items()})


# --- every sampler ------------------------------------------------------------------------


@every_sampler
def test_a_point_is_valid_and_has_a_tag_that_the_ledger_can_hold(name: str) -> None:
    search = Search(name)
    search.run(12)
    for record in search.records.values():
        search.study.space.validate(record.params)
        assert _through_the_ledger(record) == record
    assert re.fullmatch(r"\w+(\.\w+)+ [\d.]+", search.sampler.implementation)


@every_sampler
def test_the_same_seed_gives_the_same_points(name: str) -> None:
    assert Search(name, seed=0).run(15) == Search(name, seed=0).run(15)


@pytest.mark.parametrize("name", HEEDLESS)
def test_points_do_not_depend_on_how_many_trials_are_pending(name: str) -> None:
    alone = Search(name).run(16, running=1)
    assert Search(name).run(16, running=3) == alone
    assert Search(name).run(16, running=99) == alone


@every_sampler
@some
@given(events=st.lists(st.booleans(), min_size=1, max_size=24), at=st.integers(0, 24))
def test_a_restart_at_any_instant_changes_nothing(name: str, events: list[bool], at: int) -> None:
    """An event asks for a trial, or ends the last that runs; ``at`` one of them is a restart."""

    def follow(instant: int) -> Search:
        search = Search(name)
        for number, asks in enumerate(events):
            if number == instant:
                search.restart()
            if asks:
                search.ask()
            elif search.pending():
                last = search.pending()[-1].trial_id
                search.end(last, value=float(int(last) % 5))
        return search

    assert follow(at).records == follow(-1).records


@every_sampler
def test_a_limit_is_kept(name: str) -> None:
    kind = SAMPLERS.load(name)
    study = study_for(name)
    limit = kind.limit(study)
    assert limit is None or len(Search(name).run(60)) <= limit
    assert kind.wanted(study, 4) == 4
    assert kind.wanted(study, 10**6) == limit or 10**6


# --- random -------------------------------------------------------------------------------


def test_random_takes_zero_as_a_seed_like_any_other() -> None:
    zero, one = (Search("random", seed=seed).run(10) for seed in (0, 1))
    assert zero == Search("random", seed=0).run(10)
    assert zero != one


@some
@given(space=spaces.spaces(finite=True), seed=st.integers(0, 9), at=st.integers(0, 99))
def test_random_takes_each_point_of_a_small_space_once(
    space: SearchSpace, seed: int, at: int
) -> None:
    search = Search("random", spaces.a_study(space), seed)
    size = space.size
    assert size is not None
    search.run(min(at, size))
    search.restart()
    found = {spaces.frozen(point) for point in search.run(size + 1)}
    assert len(search.points) == len(found) == size
    assert isinstance(search.sampler.ask("more", []), Exhausted)


def test_random_draws_by_each_parameters_own_distribution() -> None:
    points = Search("random").run(400)
    small = sum(1 for p in points if isinstance(p["units"], int) and p["units"] < 8)
    assert small / 400 == pytest.approx(0.5, abs=0.1)
    assert sum(p["kind"] == "deep" for p in points) / 400 == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("last", "size"),
    [
        (Parameter("last", Kind.INT, low=1, high=10**9, step=1), 10 + 10**9),
        (Parameter("last", Kind.FLOAT, 0.0, low=0.0, high=1.0), None),
        (Parameter("last", Kind.FLOAT, 0.5, low=0.5, high=0.5), 11),
    ],
)
def test_random_finds_what_lies_behind_many_conditions(last: Parameter, size: int | None) -> None:
    """Ten conditions deep lies all that is left once ten shallow points were tried."""
    gates: list[Parameter] = []
    conditions: tuple[Condition, ...] = ()
    for i in range(10):
        gates.append(Parameter(f"gate_{i}", Kind.BOOLEAN, False, conditions))
        conditions += (Condition(f"gate_{i}", (True,)),)
    space = SearchSpace([*gates, dataclasses.replace(last, conditions=conditions)])
    assert space.size == size
    for seed in range(8):
        points = Search("random", spaces.a_study(space), seed).run(11)
        assert len({spaces.frozen(point) for point in points}) == 11


def test_a_given_whole_number_is_a_float_where_the_space_has_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "points.json"
    path.write_text('[{"x": 1, "n": 2}, {"x": 1.0, "n": 2}, {"x": 0.5, "n": 2}]')
    floats = Parameter("x", Kind.FLOAT, 0.0, low=0.0, high=1.0)
    space = SearchSpace([floats, Parameter("n", Kind.INT, low=1, high=3, step=1)])
    found = in_space(path, read_points(path), space)
    assert json.dumps(found) == '[{"x": 1.0, "n": 2}, {"x": 0.5, "n": 2}]'


@pytest.mark.parametrize("name", ["random", "qmc", "tpe"])
def test_floats_with_hardly_room_between_their_ends_are_used_up(name: str) -> None:
    high = math.nextafter(1.0, 2.0)
    space = SearchSpace([Parameter("x", Kind.FLOAT, 1.0, low=1.0, high=high)])
    found = Search(name, spaces.a_study(space)).run(5)
    assert sorted(float(point["x"]) for point in found) == [1.0, high]


def test_a_trials_own_seed_depends_on_the_run_and_the_trial_alone() -> None:
    found = {seed_of(seed, f"{trial:04d}") for seed in range(20) for trial in range(50)}
    assert len(found) == 1000
    assert all(0 <= seed < 2**31 for seed in found)
    assert seed_of(3, "0001") == seed_of(3, "0001")


def test_random_tries_ten_unless_told_otherwise() -> None:
    kind = SAMPLERS.load("random")
    assert kind.wanted(STUDY, None) == DEFAULT_TRIALS == 10
    assert kind.wanted(spaces.a_study(SearchSpace([SPACE.parameters[0]])), 10) == 2


# --- grid ---------------------------------------------------------------------------------


@some
@given(space=spaces.spaces(finite=True), at=st.integers(0, 99))
def test_grid_takes_each_point_once_in_order(space: SearchSpace, at: int) -> None:
    search = Search("grid", spaces.a_study(space))
    size = space.grid().size
    search.run(min(at, size))
    search.restart()
    search.run(size + 1)
    expected = [spaces.frozen(point) for point in spaces.brute_force(space)]
    assert [spaces.frozen(point) for point in search.points] == expected
    assert isinstance(search.sampler.ask("more", []), Exhausted)


def test_grid_takes_its_levels_from_the_study_and_tries_all() -> None:
    kind = SAMPLERS.load("grid")
    size = 3 * 3 * (1 + 4 * 2)
    assert kind.limit(STUDY) == kind.wanted(STUDY, None) == size
    assert len(Search("grid").run(1000)) == size
    assert {p["rate"] for p in Search("grid").run(1000)} == {0.001, 0.01, 0.1}


@pytest.mark.parametrize("use", ["check", "limit"])
def test_grid_refuses_a_float_without_a_step_by_name(use: str) -> None:
    study = spaces.a_study(SPACE, grid={"units": [1, 2]})
    with pytest.raises(SpaceError, match="'rate' is a float without a step"):
        getattr(SAMPLERS.load("grid"), use)(study)
    with pytest.raises(SpaceError, match="'rate'"):
        Search("grid", study)


def test_grid_of_a_vast_space_begins_at_once() -> None:
    digits = [Parameter(f"d{i}", Kind.CHOICE, 0, values=tuple(range(10))) for i in range(12)]
    search = Search("grid", spaces.a_study(SearchSpace(digits)))
    assert [point["d11"] for point in search.run(3)] == [0, 1, 2]


def test_a_shuffled_grid_is_the_same_points_in_an_order_of_the_seeds() -> None:
    found = []
    for seed in (1, 1, 2):
        search = Search("grid", seed=seed)
        search.sampler.shuffle()
        found.append(search.run(1000))
    assert found[0] == found[1] != found[2] != (in_order := Search("grid").run(1000))
    assert all(sorted(map(spaces.frozen, f)) == sorted(map(spaces.frozen, in_order)) for f in found)
    # Half of it is no half of the space: each level of what was declared first is there.
    assert {point["kind"] for point in found[0][: len(in_order) // 2]} == {"flat", "deep"}


def test_a_run_shuffles_its_grid_where_that_is_set(tmp_path: pathlib.Path) -> None:
    words = ["run", "tests/support/studies/small_grid.py", "--sampler", "grid", "--seed", "3"]
    orders = []
    for chosen in ("declared", "random"):
        run_id = f"grid-{chosen}"
        setting = ["--set", f"grid_order={chosen}", "--id", run_id, "--runs", str(tmp_path)]
        assert launch(*words, *setting).returncode == 0
        orders.append(tried(read(tmp_path, run_id, "trials")))
    assert orders[0] != orders[1]
    assert sorted(p for _, p in orders[0]) == sorted(p for _, p in orders[1])
    wrong = launch(*words, "--set", "grid_order=sorted", "--runs", str(tmp_path))
    assert wrong.returncode == 2 and "give declared or random" in wrong.stderr


# --- Optuna's own -------------------------------------------------------------------------


def test_optunas_grid_takes_each_point_once_in_an_order_of_the_seeds() -> None:
    found = [Search("optuna:grid", seed=seed).run(1000) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    expected = {spaces.frozen(point) for point in FLAT.space.grid(FLAT.grid)}
    for points in found:
        assert len(points) == len(expected)
        assert {spaces.frozen(point) for point in points} == expected


def test_optunas_grid_goes_on_in_the_middle_whatever_failed() -> None:
    whole = Search("optuna:grid").run(1000)
    search = Search("optuna:grid")
    for number in range(7):
        search.ask()
        search.fail(f"{number:04d}")
    search.restart()
    assert search.run(1000) == whole


def test_optunas_grid_refuses_by_name_what_it_cannot_express() -> None:
    kind = SAMPLERS.load("optuna:grid")
    with pytest.raises(SpaceError, match="'layers' is active only at some values of 'kind'"):
        kind.check(STUDY)
    with pytest.raises(SpaceError, match="'rate' is a float without a step"):
        kind.check(spaces.a_study(FLAT.space))
    digits = [Parameter(f"d{i}", Kind.CHOICE, 0, values=tuple(range(10))) for i in range(12)]
    with pytest.raises(SpaceError, match="each in memory"):
        kind.check(spaces.a_study(SearchSpace(digits)))


def test_optunas_random_is_what_optuna_draws_by_the_trials_seed() -> None:
    import optuna

    search = Search("optuna:random")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed_of(7, "0002")))
    trial = study.ask()
    kind = ("flat", "deep")[trial.suggest_categorical("kind", [0, 1])]
    assert search.run(3)[2]["kind"] == kind
    assert search.points[2]["units"] == trial.suggest_int("units", 1, 64, log=True)
