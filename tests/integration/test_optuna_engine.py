"""Engine optuna: the Optuna study that it keeps of a run, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from hpo import settings
from hpo.errors import UsageError
from hpo.optuna_mirror import JOURNAL, OptunaMirror, check_storage, mirror
from hpo.run import Run
from tests.support.cli_runs import STUDIES, LiveRun, launch, read, wait_until

SLOW = str(STUDIES / "slow.py")


def trials_in(storage: Any, name: str | None = None) -> list[Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: list[Any] = optuna.load_study(study_name=name, storage=storage).trials
    return found


def journal(run: pathlib.Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(run / JOURNAL)))


def agrees(trials: list[Any], rows: list[dict[str, Any]]) -> None:
    """The study shows each attempt once, as the ledger has it."""
    by_key = {(t.user_attrs["trial_id"], t.user_attrs["attempt"]): t for t in trials}
    assert len(by_key) == len(trials) == len(rows)
    states = {"COMPLETED": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}
    for row in rows:
        trial = by_key[row["trial_id"], row["attempt"]]
        assert trial.state.name == states[row["state"]]
        assert trial.user_attrs["params"] == row["params"]
        assert trial.user_attrs["worker"] == row["worker"]
        assert trial.user_attrs["failure"] == row["failure"]
        assert trial.value == (None if row["state"] == "FAILED" else row["value"])
        steps = {r["step"]: r["metrics"]["loss"] for r in row["history"]}
        assert trial.intermediate_values == steps
        assert set(trial.params) == set(trial.distributions) != set()
        assert trial.datetime_complete >= trial.datetime_start


def test_the_study_follows_a_search_whose_processes_are_killed(
    start: Callable[..., LiveRun],
) -> None:
    options = ("--engine", "optuna", "--trials", "4", "--seed", "1")
    run = start("r", "run", SLOW, *options, "--lease", "5", "--id", "r", held=True)
    folder = run.runs / "r"
    os.kill(run.busy_worker()["pid"], signal.SIGKILL)
    study = wait_until(lambda: _load(folder), "the study in its storage")
    seen = wait_until(lambda: study.trials, "a trial in the study")
    assert {trial.state.name for trial in seen} <= {"RUNNING", "COMPLETE", "PRUNED", "FAIL"}
    os.kill((run.status() or {})["chief"]["pid"], signal.SIGKILL)
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert any(row["failure"] == "PREEMPTED" for row in rows)
    agrees(trials_in(journal(folder), "r"), rows)


def test_pruned_trials_are_that_in_a_study_that_is_open_while_they_end(
    start: Callable[..., LiveRun], tmp_path: pathlib.Path
) -> None:
    import optuna

    study, hold = tmp_path / "held.py", HOLD.format(folder=str(tmp_path))
    study.write_text((STUDIES / "curves.py").read_text().replace("\n        loss =", hold, 1))
    options = ("--engine", "optuna", "--pruner", "asha", "--trials", "12", "--seed", "5")
    run = start("r", "run", str(study), *options, "--id", "r")
    opened = wait_until(lambda: _load(run.runs / "r"), "the study in its storage")

    def states() -> set[str]:
        return {trial.state.name for trial in opened.trials}

    wait_until(lambda: {"RUNNING", "PRUNED"} <= states(), "a trial that was pruned beside another")
    assert run.process.poll() is None
    at_work = next(t for t in opened.trials if t.state is optuna.trial.TrialState.RUNNING)
    assert at_work.value is None and at_work.params
    (tmp_path / "go-on").touch()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert {row["state"] for row in rows} == {"COMPLETED", "PRUNED"}
    agrees(opened.trials, rows)
    assert opened.best_trial.user_attrs["trial_id"] == run.read("best")["trial_id"]
    assert opened.metric_names == ["loss"]


# So that whoever goes on is seen beside those who do not.
# The first trial that comes to its second step waits there until it may go on.
HOLD = """
        import os, pathlib, time
        here = pathlib.Path({folder!r})
        if step == 2 and not (here / "held").exists():
            (here / "held").touch()
            while not (here / "go-on").exists():
                time.sleep(0.02)
        loss ="""


def _load(folder: pathlib.Path) -> Any:
    import optuna

    try:
        return optuna.load_study(study_name="r", storage=journal(folder))
    except (KeyError, FileNotFoundError):
        return None


def test_a_study_that_was_damaged_or_is_missing_is_made_again(tmp_path: pathlib.Path) -> None:
    options = ("--engine", "optuna", "--trials", "3", "--id", "r", "--runs", str(tmp_path))
    done = launch("run", str(STUDIES / "curves.py"), *options)
    assert done.returncode == 0, done.stderr
    run, rows = Run(tmp_path / "r"), read(tmp_path, "r", "trials")
    path = run.folder / JOURNAL
    agrees(trials_in(journal(run.folder), "r"), rows)
    whole = path.read_bytes()
    # In the middle of a line, as a killed writer leaves it; and gone.
    for left in (whole[: len(whole) * 2 // 3], b""):
        path.write_bytes(left)
        for _ in range(2):
            restored(mirror(run), run)
            agrees(trials_in(journal(run.folder), "r"), rows)


def restored(made: OptunaMirror, run: Run) -> None:
    reader = run.reader()
    made.restore(reader.records())
    reader.close()
    made.close()


def test_a_storage_of_ones_own_holds_the_study(tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    options = ("--engine", "optuna", "--trials", "3", "--set", f"optuna_storage={url}")
    for run_id in ("one", "two"):
        own = ("--id", run_id, "--runs", str(tmp_path))
        done = launch("run", str(STUDIES / "curves.py"), *options, *own)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "one" / JOURNAL).exists()
    for run_id in ("one", "two"):
        name = f"{run_id}-{Run(tmp_path / run_id).created_at:.0f}"
        agrees(trials_in(url, name), read(tmp_path, run_id, "trials"))


def test_a_search_goes_on_with_another_storage(tmp_path: pathlib.Path) -> None:
    gone, other = tmp_path / "gone", tmp_path / "other"
    gone.mkdir()
    other.mkdir()
    where = ("r", "--runs", str(tmp_path))
    storage = ("--set", f"optuna_storage=sqlite:///{gone}/s.db")
    command = ("run", str(STUDIES / "curves.py"), "--engine", "optuna", "--trials", "3", "--id")
    assert launch(*command, *where, *storage).returncode == 0
    shutil.rmtree(gone)
    refused = launch("resume", *where, "--trials", "+2")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "or give another: --set optuna_storage=URL" in refused.stderr
    assert read(tmp_path, "r")["trials"]["wanted"] == 3

    # Seen from there, and gone on with from here.
    with contextlib.chdir(other):
        kind, url = settings.parse("optuna_storage=sqlite:///s.db")
    assert url == f"sqlite:///{other}/s.db"
    done = launch("resume", *where, "--trials", "+2", "--set", f"{kind}={url}")
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path, "r", "trials")
    assert len(rows) == 5
    agrees(trials_in(url, f"r-{Run(tmp_path / 'r').created_at:.0f}"), rows)
    # It stays so.
    again = launch("resume", *where)
    assert again.returncode == 0, again.stderr
    changed = launch("resume", *where, "--set", "grid_order=random")
    assert changed.returncode == 2 and "makes another search" in changed.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is open to others"),
        (("--insecure",), "--insecure"),
        (("--set", "optuna_storage=searches.db"), "give a URL such as sqlite:///"),
        (("--set", "optuna_storage=sqlite://"), "gone with the chief: name a file"),
        (("--set", "optuna_storage=sqlite:///:memory:"), "gone with the chief: name a file"),
        (("--set", "optuna_storage=sqlite:////no/such/folder/a.db"), "cannot be used"),
        (("--set", "optuna_storage=mysql+pymysql://me:secret@127.0.0.1:1/x"), "Can't connect"),
        (("--set", "optuna_storage=postgresql://me:secret@127.0.0.1/x"), "package 'psycopg"),
        (("--sampler", "optuna:gird"), "did you mean 'optuna:grid'?"),
        (("--sampler", "kt-random"), "only engine keras-tuner has it"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_line(
    tmp_path: pathlib.Path, options: tuple[str, ...], said: str
) -> None:
    done = launch("run", SLOW, "--engine", "optuna", *options, "--runs", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert "secret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_says_nothing_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.optuna_mirror.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"mysql+pymysql://me:secret@127.0.0.1:{deaf.getsockname()[1]}/x"
        with pytest.raises(UsageError, match=r"mysql\+pymysql://\.\.\. .* does not answer within"):
            check_storage(url)


@pytest.mark.parametrize("role", ["chief", "tuner0"])
def test_roles_by_hand_are_refused(tmp_path: pathlib.Path, role: str) -> None:
    by_hand = {
        "KERASTUNER_TUNER_ID": role,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": "1",
    }
    done = launch("run", SLOW, "--engine", "optuna", "--runs", str(tmp_path), env=by_hand)
    assert done.returncode == 2 and "no roles by hand" in done.stderr


def test_another_engine_takes_no_storage(tmp_path: pathlib.Path) -> None:
    options = ("--set", "optuna_storage=sqlite:///x.db", "--runs", str(tmp_path))
    done = launch("run", SLOW, *options)
    assert done.returncode == 2 and "take --engine optuna" in done.stderr
