"""Every pruner, over generated histories; and beside Optuna's, whose definitions they are."""

from __future__ import annotations

import collections
import pathlib
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.pruners import AshaPruner, HyperbandPruner, MedianPruner, Pruner
from hpo.registry import NO_PRUNER, PRUNERS
from hpo.trial import Direction, Report, TrialRecord, TrialState
from tests.support.cli_runs import STUDIES, launch, read

STEPS = 27
# Optuna takes its time, and its first use more.
BESIDE_OPTUNA = settings(max_examples=40, deadline=None)
# Trials of (values by step); a few values, so that there are ties.
CURVES = st.lists(
    st.lists(st.integers(0, 9).map(float), min_size=1, max_size=STEPS), min_size=1, max_size=25
)
DIRECTIONS = st.sampled_from(Direction)


def made(name: str, direction: Direction) -> Pruner:
    pruner: Pruner = PRUNERS.load(name)(direction, STEPS, seed=3)
    return pruner


def decisions(
    pruner: Pruner, curves: list[list[float]], first: int = 0, stride: int = 1
) -> list[tuple[list[float], TrialState]]:
    """What becomes of trials that run one after another, the ``first`` of them so numbered."""
    ended = []
    for number, curve in enumerate(curves, start=first):
        trial_id, state = f"{number:04d}", TrialState.COMPLETED
        for count, value in enumerate(curve, start=1):
            pruner.reported(trial_id, stride * count, value)
            if pruner.prunes(trial_id, stride * count):
                state = TrialState.PRUNED
                break
        pruner.ended(trial_id, state)
        ended.append((curve[:count], state))
    return ended


@pytest.mark.parametrize("name", list(PRUNERS))
@given(CURVES, DIRECTIONS)
def test_a_rebuilt_pruner_decides_alike(
    name: str, curves: list[list[float]], direction: Direction
) -> None:
    whole = decisions(made(name, direction), curves)
    half = len(curves) // 2
    rebuilt = made(name, direction)
    # A ledger gives attempts by trial, whenever they ended.
    for number, (seen, state) in reversed(list(enumerate(whole[:half]))):
        rebuilt.restore(record(number, seen, state), "loss")
    assert decisions(rebuilt, curves[half:], half) == whole[half:]


def record(number: int, values: list[float], state: TrialState) -> TrialRecord:
    history = tuple(Report(step, {"loss": v, "other": 1.0}) for step, v in enumerate(values, 1))
    return TrialRecord(
        f"{number:04d}", 1, state, {}, "engine", "sampler", "impl", 0, "digest", history=history
    )


@pytest.mark.parametrize("name", list(PRUNERS))
@given(CURVES)
def test_both_directions_mirror_each_other(name: str, curves: list[list[float]]) -> None:
    negated = [[-value for value in curve] for curve in curves]
    less = [state for _, state in decisions(made(name, Direction.MIN), curves)]
    more = [state for _, state in decisions(made(name, Direction.MAX), negated)]
    assert less == more


@pytest.mark.parametrize("name", list(PRUNERS))
@given(CURVES)
def test_of_equal_trials_none_is_ended(name: str, curves: list[list[float]]) -> None:
    alike = [[1.0] * len(curve) for curve in curves]
    states = {state for _, state in decisions(made(name, Direction.MIN), alike)}
    assert states == {TrialState.COMPLETED}


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != NO_PRUNER])
def test_bad_trials_are_ended_early(name: str) -> None:
    good, bad = [0.0] * STEPS, [5.0] * STEPS
    ended = decisions(made(name, Direction.MIN), [good] * 60 + [bad] * 20)
    assert {state for _, state in ended[:60]} == {TrialState.COMPLETED}
    trained = sum(len(seen) for seen, _ in ended[60:])
    assert trained < 20 * STEPS / 2
    assert trained == 20 or name == "hyperband", "they could be told apart at their first step"


def by_optuna(
    pruner: Any, direction: Direction, curves: list[list[float]], stride: int = 1
) -> list[tuple[list[float], TrialState]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    way = "minimize" if direction is Direction.MIN else "maximize"
    study = optuna.create_study(direction=way, pruner=pruner)
    ended = []
    for curve in curves:
        trial, state = study.ask(), TrialState.COMPLETED
        for count, value in enumerate(curve, start=1):
            trial.report(value, stride * count)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
        if state is TrialState.PRUNED:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, curve[-1])
        ended.append((curve[:count], state))
    return ended


@BESIDE_OPTUNA
@given(CURVES, DIRECTIONS)
def test_median_is_optunas(curves: list[list[float]], direction: Direction) -> None:
    from optuna.pruners import MedianPruner as Theirs

    theirs = Theirs(n_startup_trials=MedianPruner.STARTUP)
    ours = decisions(made("median", direction), curves)
    assert ours == by_optuna(theirs, direction, curves)


@BESIDE_OPTUNA
@given(CURVES, DIRECTIONS, st.integers(0, 2), st.integers(1, 12))
def test_asha_is_optunas_successive_halving(
    curves: list[list[float]], direction: Direction, first: int, stride: int
) -> None:
    from optuna.pruners import SuccessiveHalvingPruner

    theirs = SuccessiveHalvingPruner(
        min_resource=1, reduction_factor=AshaPruner.FACTOR, min_early_stopping_rate=first
    )
    ours = decisions(AshaPruner(direction, STEPS, 3, first), curves, stride=stride)
    assert ours == by_optuna(theirs, direction, curves, stride)


def test_hyperband_has_optunas_brackets_in_optunas_proportions() -> None:
    from optuna.pruners import HyperbandPruner as Theirs

    theirs = Theirs(min_resource=1, max_resource=STEPS, reduction_factor=AshaPruner.FACTOR)
    by_optuna(theirs, Direction.MIN, [[1.0]])
    ours = HyperbandPruner(Direction.MIN, STEPS, 3)
    assert ours._shares == theirs._trial_allocation_budgets
    ids = [f"{number:04d}" for number in range(3000)]
    count = collections.Counter(ours._brackets.index(ours._bracket(name)) for name in ids)
    whole = sum(ours._shares)
    for number, share in enumerate(ours._shares):
        # Five standard deviations of a share of 3,000.
        expected = share / whole
        spread = 5 * (expected * (1 - expected) / 3000) ** 0.5
        assert abs(count[number] / 3000 - expected) < spread
    assert zlib.crc32(b"3:0000") != zlib.crc32(b"4:0000")


CURVE = STUDIES / "curves.py"


def test_a_search_ends_bad_trials_early_and_says_so(tmp_path: pathlib.Path) -> None:
    options = ("--pruner", "asha", "--trials", "12", "--seed", "5", "--id", "pruned")
    done = launch("run", str(CURVE), *options, "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    status, rows = read(tmp_path, "pruned"), read(tmp_path, "pruned", "trials")
    assert status["pruner"] == "asha"
    states = collections.Counter(row["state"] for row in rows)
    assert states["PRUNED"] >= 4 and states["COMPLETED"] >= 1
    assert status["trials"]["pruned"] == states["PRUNED"] and len(rows) == 12
    for row in rows:
        steps = [report["step"] for report in row["history"]]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) in ((1, 3, 9) if row["state"] == "PRUNED" else (9,))
        assert row["failure"] is None and row["error"] is None
        # The best step so far, as for any other trial.
        assert row["value"] == min(report["metrics"]["loss"] for report in row["history"])
    pruned = next(row["trial_id"] for row in rows if row["state"] == "PRUNED")
    log = launch("logs", "pruned", pruned, "--runs", str(tmp_path))
    assert "told to stop" in log.stdout


def test_a_sampler_that_decides_epochs_takes_no_pruner(tmp_path: pathlib.Path) -> None:
    options = ("--sampler", "kt-hyperband", "--pruner", "asha", "--runs", str(tmp_path))
    done = launch("run", str(CURVE), *options)
    assert done.returncode == 2
    assert "'kt-hyperband' decides itself" in done.stderr
    done = launch("run", str(CURVE), "--pruner", "ahsa", "--runs", str(tmp_path))
    assert done.returncode == 2 and "did you mean 'asha'?" in done.stderr
