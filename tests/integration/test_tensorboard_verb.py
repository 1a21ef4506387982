"""`launch.py tensorboard`, over runs that a real search made."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from cluster import cli
from cluster.verbs import tensorboard as verb
from hpo.tensorboard import server
from hpo.tensorboard.files import ENDED
from tests.support.cli_runs import PATIENCE_S, QUICK, ROOT, STUDIES, LiveRun, launch, wait_until
from tests.support.hparams_client import Page, metrics_of
from tests.support.manual_chief import HandMade, free_port

OTHERS = "events.out.tfevents.1700000000.elsewhere.4711.0.v2"
STATUS = {"COMPLETED": "STATUS_SUCCESS", "FAILED": "STATUS_FAILURE"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRun]:
    """A search of ten points: some complete, some raise, some kill their own process, and one
    is running when its worker is killed."""
    study = str(STUDIES / "fates.py")
    options = ("--sampler", "grid", "--id", "fates", "--seed", "1", "--code-retries", "0")
    folder = tmp_path_factory.mktemp("searched")
    run = LiveRun(folder / "runs", "fates", "run", study, *options, gate=folder / "goes-on")
    try:
        victim = wait_until(lambda: _worker_of_a_long_trial(run), "a trial that takes long")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: any(r["failure"] == "PREEMPTED" for r in run.rows()), "it is lost")
        run.release()
        status, out, err = run.wait()
        assert status == 0, out + err
        yield run
    finally:
        run.end()


def _worker_of_a_long_trial(run: LiveRun) -> int | None:
    status = run.status()
    if not status:
        return None
    long = {
        row["trial_id"]
        for row in run.rows()
        if row["state"] == "RUNNING" and row["params"].get("depth") == 3 and row["history"]
    }
    return next((w["pid"] for w in status["workers"] if w["trial_id"] in long), None)


@pytest.fixture
def runs(searched: LiveRun, tmp_path: pathlib.Path) -> pathlib.Path:
    """The search's runs folder, to be spoilt."""
    return pathlib.Path(shutil.copytree(searched.runs, tmp_path / "runs"))


@contextlib.contextmanager
def opened(runs: pathlib.Path, *arguments: str) -> Iterator[tuple[Page, subprocess.Popen[str]]]:
    """The page of a `launch.py tensorboard`, and its process."""
    place = ("--port", "0", "--runs", str(runs))
    process = subprocess.Popen(
        [sys.executable, "launch.py", "tensorboard", *arguments, *place],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout and process.stderr
        url = process.stdout.readline().strip()
        assert url.endswith("#hparams"), process.stderr.read()
        yield Page(url), process
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


def said_by(process: subprocess.Popen[str]) -> str:
    """What it has said on standard error up to its end by Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=PATIENCE_S)[1]


def session_of(row: dict[str, Any]) -> str:
    attempt = f"-attempt-{row['attempt']}" if row["attempt"] > 1 else ""
    return f"trial-{row['trial_id']}{attempt}"


def seconds(iso: str) -> Any:
    """A time of `trials --json`, which has milliseconds."""
    return pytest.approx(datetime.datetime.fromisoformat(iso).timestamp(), abs=0.001)


def assert_shows_the_ledger(page: Page, rows: list[dict[str, Any]]) -> None:
    """Every cell of the page against what `trials --json` says."""
    shown = page.rows(len(rows))
    for row in rows:
        group = shown[session_of(row)]
        (session,) = group["sessions"]
        assert session["status"] == STATUS[row["state"]]
        assert session["startTimeSecs"] == seconds(row["started_at"])
        assert session["endTimeSecs"] == seconds(row["ended_at"])
        logarithm = {"log10(rate)": pytest.approx(math.log10(row["params"]["rate"]))}
        assert group["hparams"] == {**row["params"], **logarithm}
        losses = [report["metrics"]["loss"] for report in row["history"]]
        last = row["history"][-1]["step"]
        assert metrics_of(group) == {"loss": (last, losses[-1]), "best_loss": (last, min(losses))}
        if row["state"] == "COMPLETED":
            assert min(losses) == row["value"]


def test_every_fate_of_a_real_search_is_on_the_page(searched: LiveRun) -> None:
    rows = searched.read("trials")
    fates = {(r["params"]["way"], r["state"], r["failure"]) for r in rows}
    assert fates == {
        ("fine", "COMPLETED", None),
        ("raise", "FAILED", "CODE"),
        ("die", "FAILED", "CODE"),
        ("long", "COMPLETED", None),
        ("long", "FAILED", "PREEMPTED"),
    }
    assert sum(row["attempt"] == 2 for row in rows) == 1
    assert len(rows) == 11
    with opened(searched.runs, "fates") as (page, _):
        assert_shows_the_ledger(page, rows)
        infos = {info["name"]: info for info in page.experiment()["hparamInfos"]}
    types = {name: info["type"].removeprefix("DATA_TYPE_") for name, info in infos.items()}
    assert types == {
        "way": "STRING",
        "rate": "FLOAT64",
        "depth": "FLOAT64",
        "log10(rate)": "FLOAT64",
    }
    assert infos["way"]["domainDiscrete"] == ["fine", "raise", "die", "long"]
    assert infos["rate"]["domainInterval"] == {"minValue": 0.001, "maxValue": 0.1}
    assert infos["depth"]["domainInterval"] == {"minValue": 2, "maxValue": 3}


def test_a_run_that_came_without_its_files_is_shown_from_its_ledger(
    searched: LiveRun, runs: pathlib.Path
) -> None:
    shutil.rmtree(runs / "fates" / "tensorboard")
    with opened(runs, "fates") as (page, process):
        assert_shows_the_ledger(page, searched.read("trials"))
        assert "what TensorBoard's files lacked was written" in said_by(process)


def test_rows_that_the_disk_had_no_room_for_are_added(
    searched: LiveRun, runs: pathlib.Path
) -> None:
    folder = runs / "fates" / "tensorboard"
    shutil.rmtree(folder / "trial-0003")
    (folder / "trial-0004" / ENDED).unlink()
    kept = next((folder / "trial-0005").glob("events*"))
    with opened(runs, "fates") as (page, _):
        assert_shows_the_ledger(page, searched.read("trials"))
    assert kept.exists()


def test_rebuild_writes_everything_anew(searched: LiveRun, runs: pathlib.Path) -> None:
    folder = runs / "fates" / "tensorboard"
    before = {path.name for path in folder.rglob("events*")}
    with opened(runs, "fates", "--rebuild") as (page, process):
        assert_shows_the_ledger(page, searched.read("trials"))
        assert "written anew from its ledger" in said_by(process)
    after = {path.name for path in folder.rglob("events*")}
    assert len(after) == len(before)
    assert not before & after


def of_another_program(folder: pathlib.Path) -> str:
    (folder / "mine").mkdir()
    (folder / "mine" / OTHERS).touch()
    return "another program wrote it"


def of_another_program_in_a_trial(folder: pathlib.Path) -> str:
    (folder / "trial-0001" / OTHERS).touch()
    return "another program wrote it"


def of_another_trial(folder: pathlib.Path) -> str:
    shutil.copytree(folder / "trial-0001", folder / "trial-0099")
    return "the ledger has no trial-0099"


def of_another_run_of_the_study(folder: pathlib.Path) -> str:
    shutil.rmtree(folder / "trial-0001")
    shutil.copytree(folder / "trial-0000", folder / "trial-0001")
    return "the ledger has another start of that trial"


def of_another_study(folder: pathlib.Path) -> str:
    (experiment,) = folder.glob("events*")
    study, runs = str(STUDIES / "slow.py"), folder.parent.parent
    options = ("--id", "other", "--trials", "1", "--workers", "1", "--runs", str(runs))
    assert launch("run", study, *options, env=QUICK).returncode == 0
    (other,) = (runs / "other" / "tensorboard").glob("events*")
    shutil.copyfile(other, experiment)
    return "it declares other hyperparameters or metrics"


def of_nobody(folder: pathlib.Path) -> str:
    (experiment,) = folder.glob("events*")
    experiment.write_bytes(b"\x07" + bytes(11) + b"garbage" * 3)
    return "it declares other hyperparameters or metrics"


@pytest.mark.parametrize(
    "spoil",
    [
        of_another_program,
        of_another_program_in_a_trial,
        of_another_trial,
        of_another_run_of_the_study,
        of_another_study,
        of_nobody,
    ],
)
def test_files_of_something_else_are_refused_and_never_deleted(
    searched: LiveRun, runs: pathlib.Path, spoil: Callable[[pathlib.Path], str]
) -> None:
    folder = runs / "fates" / "tensorboard"
    why = spoil(folder)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*tfevents*")}
    done = launch("tensorboard", "fates", "--port", "0", "--runs", str(runs))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "does not belong to run fates" in done.stderr
    assert why in done.stderr
    assert "--rebuild" in done.stderr
    with opened(runs, "fates", "--rebuild") as (page, process):
        assert_shows_the_ledger(page, searched.read("trials"))
        assert "what was not of this run lies in" in said_by(process)
    (aside,) = (runs / "fates").glob("tensorboard-before-*")
    after = {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*tfevents*")}
    assert after == before


def test_a_chiefs_files_are_not_rebuilt_and_an_empty_run_says_so(
    start: Callable[..., LiveRun],
) -> None:
    run = start("slow", "run", str(STUDIES / "slow.py"), "--id", "slow", held=True)
    run.busy_worker()
    done = launch("tensorboard", "slow", "--rebuild", "--runs", str(run.runs))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "its chief writes TensorBoard's files" in done.stderr
    with opened(run.runs, "slow") as (page, _):
        page.rows(2, lambda rows: all(row["metricValues"] for row in rows.values()))
        statuses = {row["sessions"][0]["status"] for row in page.rows(2).values()}
        assert statuses == {"STATUS_UNKNOWN"}


@pytest.fixture
def without_trials(tmp_path: pathlib.Path) -> pathlib.Path:
    """The runs folder of a run `slow` whose chief was killed before it had a worker."""
    chief = HandMade(tmp_path / "runs", "slow", free_port())
    try:
        folder = chief.run.folder
    finally:
        chief.process.kill()
        chief.process.communicate()
    shutil.rmtree(folder / "tensorboard")
    return folder.parent


def test_a_run_without_a_trial_has_columns_and_says_why_no_rows(
    without_trials: pathlib.Path,
) -> None:
    with opened(without_trials, "slow") as (page, process):
        columns = {info["name"] for info in page.experiment()["hparamInfos"]}
        assert columns == {"x", "n"}
        assert page.first_rows(10) == []
        assert "run slow has no trial yet" in said_by(process)


class Looks:
    """The time as the verb sees it, which goes on only where it pauses between two looks."""

    def __init__(self, events: dict[int, Callable[[], object]]) -> None:
        self.now = 0.0
        self.pauses = 0
        self._events = events

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        self._events.get(self.pauses, lambda: None)()


@contextlib.contextmanager
def looking(
    monkeypatch: pytest.MonkeyPatch, events: dict[int, Callable[[], object]]
) -> Iterator[Looks]:
    """Lets something happen after the verb's first look, its second and so on."""
    looks = Looks(events)
    with monkeypatch.context() as patch:
        patch.setattr(verb, "time", looks)
        yield looks


def opens(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, pathlib.Path]]:
    """The folders that the verb wants served, by run: here nobody serves them."""
    wanted: list[dict[str, pathlib.Path]] = []

    @contextlib.contextmanager
    def serve(folders: dict[str, pathlib.Path], *_: object) -> Iterator[Any]:
        wanted.append(folders)
        yield types.SimpleNamespace(url="there", wait=interrupted)

    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server, "serve", serve)
        assert cli.main(words) == 0
    return wanted


def test_beside_a_chief_its_files_are_waited_for(
    without_trials: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = without_trials / "slow" / "tensorboard"
    words = ["tensorboard", "slow", "--beside", "--wait", "60", "--runs", str(without_trials)]

    def not_yet() -> None:
        # As in the moment before the chief takes its lock: who writes then is in its way.
        assert not files.exists()

    with looking(monkeypatch, {1: not_yet, 8: not_yet, 9: files.mkdir}) as looks:
        assert opens(words, monkeypatch) == [{"slow": files}]
    assert looks.pauses == 9
    assert not list(files.iterdir())


def test_several_runs_stand_on_one_page(searched: LiveRun, runs: pathlib.Path) -> None:
    shutil.copytree(runs / "fates", runs / "again")
    with opened(runs, "fates", "again", "fates") as (page, _):
        names = page.rows(22)
    assert {name.partition("/")[0] for name in names} == {"fates", "again"}


def test_a_run_that_is_about_to_begin_is_waited_for(
    runs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    words = ["tensorboard", "fates", "--wait", "60", "--runs", str(later)]
    appears = {4: lambda: (runs / "fates").rename(later / "fates")}
    with looking(monkeypatch, appears) as looks:
        assert opens(words, monkeypatch) == [{"fates": later / "fates" / "tensorboard"}]
    assert looks.pauses == 4


def test_a_run_that_does_not_come_is_waited_for_no_longer_than_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with looking(monkeypatch, {}) as looks:
        assert cli.main(["tensorboard", "fates", "--wait", "60", "--runs", str(tmp_path)]) == 2
    assert looks.now == 60
    assert "no run 'fates'" in capsys.readouterr().err


def refused(*arguments: str, **options: Any) -> tuple[int, str]:
    done = launch("tensorboard", *arguments, **options)
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def test_what_cannot_be_opened(searched: LiveRun, tmp_path: pathlib.Path) -> None:
    place = ("--runs", str(searched.runs))
    assert "did you mean 'fates'" in refused("fate", *place)[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        status, line = refused("fates", "--port", port, *place)
        assert (status, "in use" in line) == (2, True)
    (tmp_path / "empty" / "tensorboard").mkdir(parents=True)
    (tmp_path / "empty" / "tensorboard" / "__init__.py").touch()
    status, line = refused("fates", *place, env={"PYTHONPATH": str(tmp_path / "empty")})
    assert (status, "pip install tensorboard" in line) == (3, True)
