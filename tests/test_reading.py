"""The verbs that read, as processes over run folders that a real ledger writer has made."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import h5py
import numpy as np
import pytest

from cluster.progress import Progress
from hpo.ledger import LedgerWriter
from hpo.parameter import Kind, Parameter
from hpo.protocol import Attempt, StoreAttempt, StoreReport, StoreWorker, WorkerInfo, WorkerRow
from hpo.run import SearchRequest, create_run
from hpo.space import SearchSpace
from hpo.study import Form, Study, digest_of
from hpo.trial import Direction, Failure, Report, TrialRecord, TrialState
from tests.live import ROOT, launch, wait_until

BEGAN = 1_700_000_000.0
FUNCTION = (
    "def evaluate(hp, report):\n    report(1, {'val_accuracy': hp.Float('rate', 0.0, 1.0)})\n"
)
SPACE = SearchSpace([Parameter("rate", Kind.FLOAT, low=0.0, high=1.0)])
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "study.py", line 2, in evaluate\n'
    "ValueError: the [rate] is too high\n"
    "for this model"
)
STATUS_KEYS = [
    "id",
    "study",
    "engine",
    "sampler",
    "pruner",
    "state",
    "trials",
    "failures",
    "best",
    "elapsed_s",
    "utilization",
    "chief",
    "workers",
]
TRIAL_KEYS = [
    "trial_id",
    "attempt",
    "state",
    "failure",
    "params",
    "value",
    "history",
    "engine",
    "sampler",
    "sampler_impl",
    "seed",
    "worker",
    "device",
    "queued_at",
    "started_at",
    "ended_at",
    "error",
]


class Book:
    """A run with its ledger open, as a chief has it; what happens is said by the test."""

    def __init__(self, runs: pathlib.Path, run_id: str, wanted: int = 10, **study: Any) -> None:
        runs.mkdir(exist_ok=True)
        path = runs / f"{run_id}.py"
        path.write_text(study.pop("text", FUNCTION))
        fields: dict[str, Any] = {"form": Form.FUNCTION, "space": SPACE, **study}
        self.study = Study(
            name="book",
            objective="val_accuracy",
            direction=Direction.MAX,
            epochs=3,
            batch_size=2,
            grid={},
            digest=digest_of(path),
            **fields,
        )
        request = SearchRequest(
            str(path), self.study.digest, "keras-tuner", "random", "none", wanted, None, None, 7
        )
        terms = {"wanted": wanted, "lease_s": 30.0, "workers": 2}
        self.run = create_run(runs, run_id, request, self.study, path, terms)
        self.writer = LedgerWriter(self.run.folder)
        self.writer.begin_session("here", 4711, "127.0.0.1:4712", time.time() - 60)
        self._fence = 0
        self._ends = 0

    def start(self, trial: int, worker: str = "worker-0", attempt: int = 1) -> Attempt:
        """An attempt is handed out."""
        self._fence += 1
        record = TrialRecord(
            trial_id=f"{trial:04d}",
            attempt=attempt,
            state=TrialState.RUNNING,
            params={"rate": trial / 100},
            engine="keras-tuner",
            sampler="random",
            sampler_impl="hpo.samplers.random.RandomSampler 1",
            seed=trial,
            study_digest=self.study.digest,
            worker=worker,
            device="cpu:0",
            queued_at=BEGAN,
            started_at=BEGAN + 1,
            asked_seq=trial + 1,
        )
        return self._store(Attempt(record, self._fence))

    def wait(self, trial: int, attempt: int = 1) -> None:
        """An attempt stands in the queue."""
        self._fence -= 1
        begun = self.start(trial, attempt=attempt)
        record = dataclasses.replace(
            begun.record, state=TrialState.WAITING, worker=None, device=None, started_at=None
        )
        self._store(Attempt(record))

    def report(self, attempt: Attempt, values: Sequence[float]) -> Attempt:
        """The attempt reports ``values`` as its steps."""
        for step, value in enumerate(values, 1):
            best = max([v for v in values[:step] if math.isfinite(v)], default=None)
            record = dataclasses.replace(attempt.record, value=best, best_step=step)
            attempt = dataclasses.replace(attempt, record=record)
            told = Report(step, {"val_accuracy": value, "loss": 1.0 / step})
            self.writer.commit([StoreReport(record, told)], time.time()).result()
        return attempt

    def end(
        self,
        attempt: Attempt,
        failure: Failure | None = None,
        error: str | None = None,
        lost: bool = False,
    ) -> None:
        """The attempt ends; a lost one leaves its trial open."""
        self._ends += not lost
        record = dataclasses.replace(
            attempt.record,
            state=TrialState.FAILED if failure else TrialState.COMPLETED,
            failure=failure,
            error=error,
            value=None if failure else attempt.record.value,
            ended_at=BEGAN + 42,
            ended_seq=None if lost else 1000 + self._ends,
        )
        self._store(Attempt(record, attempt.fence))

    def worker(self, name: str, pid: int, left_at: float | None = None) -> None:
        """A worker's row."""
        info = WorkerInfo(name, f"incarnation of {name}", "there", pid, "cpu:0")
        row = WorkerRow(info, time.time() - 60, left_at)
        self.writer.commit([StoreWorker(row)], time.time()).result()

    def close(self) -> None:
        """The chief leaves."""
        self.writer.end_session(time.time())
        self.writer.close()

    def _store(self, attempt: Attempt) -> Attempt:
        self.writer.commit([StoreAttempt(attempt)], time.time()).result()
        return attempt


def fill(book: Book) -> None:
    """Attempts of every kind: six trials, of which four have ended."""
    book.worker("worker-0", 11)
    book.worker("worker-1", 12, left_at=time.time())
    book.end(book.report(book.start(0), [0.5, 0.9, 0.7]))
    book.end(book.start(1), Failure.CODE, TRACEBACK)
    book.end(book.start(2, "worker-1"), Failure.PREEMPTED, "worker worker-1 left", lost=True)
    book.end(book.report(book.start(2, attempt=2), [0.95]))
    book.report(book.start(3), [0.1, 0.2])
    book.wait(4)
    nan = book.report(book.start(5), [0.3, math.nan])
    book.end(nan, Failure.NAN, "val_accuracy is nan at step 2")
    logs = book.run.logs
    (logs / "chief.log").write_text("the chief served\n")
    (logs / "worker-0.log").write_text("the worker worked\n")
    book.run.trial_log("0002", 2).write_text("Epoch 1/1\n")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """A run in the middle of its search."""
    book = Book(tmp_path_factory.mktemp("live") / "runs", "living")
    fill(book)
    yield book
    book.close()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The same run after its chief has left."""
    book = Book(tmp_path_factory.mktemp("ended") / "runs", "finished")
    fill(book)
    book.close()
    return book


def say(verb: str, book: Book, *arguments: str, **options: Any) -> Any:
    """What a verb prints and leaves with for the run of ``book``."""
    return launch(verb, book.run.id, *arguments, "--runs", str(book.run.folder.parent), **options)


def strict(text: str) -> Any:
    """JSON as other languages read it, without NaN."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def read(verb: str, book: Book) -> Any:
    done = say(verb, book, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return strict(done.stdout)


# --- status, list ----------------------------------------------------------------------


def test_status_of_a_live_run_has_the_documented_shape(live: Book) -> None:
    found = read("status", live)
    assert list(found) == STATUS_KEYS
    assert {name: found[name] for name in STATUS_KEYS[:6]} == {
        "id": "living",
        "study": "book",
        "engine": "keras-tuner",
        "sampler": "random",
        "pruner": "none",
        "state": "RUNNING",
    }
    assert found["trials"] == {
        "wanted": 10,
        "waiting": 1,
        "running": 1,
        "completed": 2,
        "pruned": 0,
        "failed": 2,
    }
    assert found["failures"] == {"PREEMPTED": 1, "OOM": 0, "NAN": 1, "TIMEOUT": 0, "CODE": 1}
    assert found["best"] == {"trial_id": "0002", "value": 0.95, "params": {"rate": 0.02}}
    assert 59 < found["elapsed_s"] < 600
    assert 0 < found["utilization"] <= 1
    assert found["chief"] == {"host": "here", "pid": 4711, "address": "127.0.0.1:4712"}
    assert found["workers"] == [
        {
            "id": "worker-0",
            "host": "there",
            "pid": 11,
            "device": "cpu:0",
            "state": "RUNNING",
            "trial_id": "0003",
        }
    ]


def test_a_run_whose_processes_are_gone_is_stopped(ended: Book) -> None:
    found = read("status", ended)
    assert found["state"] == "STOPPED"
    assert found["chief"] == {"host": None, "pid": None, "address": None}
    assert found["workers"] == []


def test_noting_the_test_figures_does_not_look_like_a_chief(ended: Book) -> None:
    with contextlib.closing(LedgerWriter(ended.run.folder)):
        assert read("status", ended)["state"] == "STOPPED"


@pytest.mark.parametrize(
    ("outcomes", "state", "status"), [([True, False], "DONE", 0), ([False, False], "FAILED", 1)]
)
def test_a_run_that_tried_all_is_done_if_any_trial_completed(
    tmp_path: pathlib.Path, outcomes: list[bool], state: str, status: int
) -> None:
    book = Book(tmp_path / "runs", "all", wanted=2)
    for trial, completes in enumerate(outcomes):
        attempt = book.report(book.start(trial), [0.5])
        book.end(attempt, None if completes else Failure.CODE, None if completes else "no")
    book.close()
    assert read("status", book)["state"] == state
    assert say("watch", book).returncode == status


def test_of_equal_trials_the_one_that_ended_first_is_best(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "tie")
    early, late = book.report(book.start(1), [0.5]), book.report(book.start(0), [0.5])
    book.end(early)
    book.end(late)
    book.close()
    assert read("status", book)["best"]["trial_id"] == "0001"


def test_status_for_a_person_says_the_same(live: Book, ended: Book) -> None:
    text = say("status", live).stdout
    for part in ("living  RUNNING", "4 of 10 ended", "CODE 1", "0.95", "rate=0.02", "trial 0003"):
        assert part in text
    assert "resume finished" in say("status", ended).stdout
    assert len(text.splitlines()) < 24


def test_list_gives_short_status_objects(live: Book) -> None:
    runs = str(live.run.folder.parent)
    found = strict(launch("list", "--json", "--runs", runs).stdout)
    assert [row["id"] for row in found] == ["living"]
    short = ["id", "study", "engine", "sampler", "pruner", "state", "trials", "best", "elapsed_s"]
    assert list(found[0]) == short
    header, row = launch("list", "--runs", runs).stdout.splitlines()
    assert header.split()[:3] == ["run", "state", "ended"]
    assert row.split()[:4] == ["living", "RUNNING", "4/10", "0.95"]


def test_list_of_nothing_says_what_to_do(tmp_path: pathlib.Path) -> None:
    assert strict(launch("list", "--json", "--runs", str(tmp_path)).stdout) == []
    assert "launch.py run" in launch("list", "--runs", str(tmp_path)).stdout


# --- trials, best ----------------------------------------------------------------------


def test_trials_gives_one_object_a_line_for_each_attempt(live: Book) -> None:
    done = say("trials", live, "--json")
    rows = [strict(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(rows) == 7
    assert all(list(row) == TRIAL_KEYS for row in rows)
    by_key = {(row["trial_id"], row["attempt"]): row for row in rows}
    first, lost, again = by_key["0000", 1], by_key["0002", 1], by_key["0002", 2]
    assert (first["state"], first["failure"], first["value"]) == ("COMPLETED", None, 0.9)
    assert first["history"][1] == {"step": 2, "metrics": {"val_accuracy": 0.9, "loss": 0.5}}
    assert first["queued_at"] == "2023-11-14T22:13:20.000Z"
    assert (lost["state"], lost["failure"], lost["worker"]) == ("FAILED", "PREEMPTED", "worker-1")
    assert (again["state"], again["value"]) == ("COMPLETED", 0.95)
    assert by_key["0001", 1]["error"] == TRACEBACK
    assert (by_key["0003", 1]["state"], by_key["0003", 1]["ended_at"]) == ("RUNNING", None)
    assert by_key["0004", 1]["worker"] is None
    # JSON has no NaN.
    assert by_key["0005", 1]["history"][1]["metrics"]["val_accuracy"] is None


def test_trials_for_a_person_is_a_table(live: Book) -> None:
    header, *rows = say("trials", live).stdout.splitlines()
    assert header.split()[:4] == ["trial", "attempt", "state", "val_accuracy"]
    assert len(rows) == 7
    assert rows[0].split()[:5] == ["0000", "1", "COMPLETED", "0.9", "3"]
    assert "FAILED CODE" in rows[1] and "ValueError: the [rate] is too high" in rows[1]


def test_a_reader_of_a_pipe_may_leave_early(live: Book) -> None:
    command = f"{sys.executable} launch.py trials living --json --runs {live.run.folder.parent}"
    done = subprocess.run(
        f"{command} | head -c 10", shell=True, cwd=ROOT, capture_output=True, timeout=30
    )
    assert (len(done.stdout), done.stderr) == (10, b"")


def test_best_has_the_documented_shape(live: Book) -> None:
    best = {"trial_id": "0002", "value": 0.95, "params": {"rate": 0.02}, "test": None}
    assert read("best", live) == best
    text = say("best", live).stdout.split()
    assert text == ["trial", "0002", "val_accuracy", "0.95", "fit", "41", "s", "rate", "0.02"]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_best_without_a_completed_trial_is_refused(
    tmp_path: pathlib.Path, arguments: tuple[str, ...]
) -> None:
    book = Book(tmp_path / "runs", "young")
    book.report(book.start(0), [0.5])
    book.close()
    done = say("best", book, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no completed trial" in done.stderr


KERAS = """
import numpy as np

def build_model(hp):
    import keras
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, activation="softmax")])
    rate = hp.Float("rate", 0.0, 1.0)
    sgd = keras.optimizers.SGD(rate)
    model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def load_data():
    x = np.array([[-1.0], [1.0], [2.0], [-2.0]])
    return (x, np.array([0, 1, 1, 0])), (x, np.array([0, 1, 1, 1]))
"""


def save_weights(path: pathlib.Path, layer: str = "dense") -> None:
    """Weights that tell the sign of the input, as Keras lays them out, without its 5 s start."""
    with h5py.File(path, "w") as file:
        file[f"layers/{layer}/vars/0"] = np.array([[-1.0, 1.0]], "float32")
        file[f"layers/{layer}/vars/1"] = np.zeros(2, "float32")


@pytest.fixture
def trained(tmp_path: pathlib.Path) -> Book:
    """A run of a Keras study with one completed trial; its weights are not there yet."""
    book = Book(tmp_path / "runs", "trained", text=KERAS, form=Form.KERAS)
    book.end(book.report(book.start(0), [0.75]))
    return book


def test_best_evaluates_the_winner_once_and_remembers_it(trained: Book) -> None:
    weights = trained.run.weights / "0000.weights.h5"
    save_weights(weights)
    going_on = say("best", trained, "--json")
    assert strict(going_on.stdout)["test"] is None
    assert "search is over" in going_on.stderr
    trained.close()
    test = read("best", trained)["test"]
    assert list(test) == ["accuracy", "loss"]
    # Right for three of the four test examples.
    assert test["accuracy"] == 0.75
    logits = [(1, 1), (1, 1), (2, 1), (2, -1)]
    loss = sum(math.log1p(math.exp(-2 * size * sign)) for size, sign in logits) / 4
    assert test["loss"] == pytest.approx(loss, rel=1e-5)
    weights.unlink()
    assert read("best", trained)["test"] == test
    assert "accuracy=0.75" in say("best", trained).stdout
    assert "accuracy=0.75" in say("watch", trained).stdout


def test_best_without_test_figures_says_why(trained: Book, tmp_path: pathlib.Path) -> None:
    trained.close()
    done = say("best", trained, "--json")
    assert done.returncode == 0 and strict(done.stdout)["test"] is None
    assert "weights were not kept" in done.stderr
    (trained.run.weights / "0000.weights.h5").write_bytes(b"no weights")
    (tmp_path / "keras.py").write_text("raise ImportError('there is no Keras here')\n")
    done = say("best", trained, "--json", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and strict(done.stdout)["value"] == 0.75
    assert "there is no Keras here" in done.stderr and len(done.stderr.splitlines()) == 1


# --- unknown runs, logs ----------------------------------------------------------------


@pytest.mark.parametrize("verb", ["status", "trials", "best", "logs", "watch", "tensorboard"])
def test_an_unknown_run_is_refused_with_what_is_near(verb: str, ended: Book) -> None:
    done = launch(verb, "finnished", "--runs", str(ended.run.folder.parent))
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'finished'?" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [((), "the chief served"), (("worker-0",), "the worker worked"), (("0002",), "Epoch 1/1")],
)
def test_logs_shows_the_chief_a_worker_or_a_trial(
    ended: Book, name: tuple[str, ...], text: str
) -> None:
    done = say("logs", ended, *name)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, text, "")


def test_the_log_of_a_failed_trial_ends_with_its_error(ended: Book) -> None:
    done = say("logs", ended, "0001")
    assert (done.returncode, done.stdout.strip()) == (0, TRACEBACK)
    assert "printed nothing" in done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("0003", "runs on worker-0"),
        ("0004", "waits for a worker"),
        ("worker-1", "has no log here"),
        ("worker-3", "did you mean 'worker-"),
        ("9999", "trials 0000 to 0005"),
        ("../token", "known: chief"),
    ],
)
def test_a_log_that_is_not_there_is_explained(live: Book, name: str, why: str) -> None:
    done = say("logs", live, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr and len(done.stderr.splitlines()) == 1


@contextlib.contextmanager
def background(*arguments: str, stdout: Any = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """A `launch.py` that goes on while the test does things; it ends with the test."""
    process = subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_logs_are_followed_until_the_run_ends(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "talking")
    runs = str(tmp_path / "runs")
    attempt = book.start(0)
    log = book.run.logs / "chief.log"
    log.write_text("one\n")
    with (
        background("logs", "talking", "-f", "--runs", runs) as chief,
        background("logs", "talking", "0000", "-f", "--runs", runs) as trial,
    ):
        assert chief.stdout and chief.stdout.readline() == "one\n"
        with log.open("a") as file:
            file.write("two\n")
        assert chief.stdout.readline() == "two\n"
        assert trial.poll() is None
        book.run.trial_log("0000", 1).write_text("all of it\n")
        book.end(attempt)
        assert trial.communicate(timeout=20)[0] == "all of it\n"
        assert chief.poll() is None
        book.close()
        assert chief.communicate(timeout=20)[0] == ""
        assert (chief.returncode, trial.returncode) == (0, 0)


def test_logs_as_json_are_an_object_a_line(tmp_path: pathlib.Path, ended: Book) -> None:
    book = Book(tmp_path / "runs", "talking")
    log = book.run.logs / "chief.log"
    log.write_bytes(b"one\ntw")
    with background("logs", "talking", "-f", "--json", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout
        assert strict(process.stdout.readline()) == {"source": "chief", "line": "one"}
        with log.open("ab") as file:
            file.write("o ö\n\n\xff end".encode("latin-1"))
        assert strict(process.stdout.readline())["line"] == "two \ufffd"
        book.close()
        assert [strict(line)["line"] for line in process.stdout] == ["", "\ufffd end"]
        assert process.wait(timeout=20) == 0
    done = say("logs", ended, "0001", "--json")
    rows = [strict(line) for line in done.stdout.splitlines()]
    assert [row["line"] for row in rows] == TRACEBACK.splitlines()
    assert {row["source"] for row in rows} == {"0001"}


# --- progress and watch ----------------------------------------------------------------


def test_progress_writes_a_line_for_each_attempt_that_ends(tmp_path: pathlib.Path) -> None:
    book, out = Book(tmp_path / "runs", "plain", wanted=4), io.StringIO()
    progress = Progress(book.run, out)

    def new_lines() -> list[str]:
        out.seek(0)
        out.truncate()
        progress.update()
        return out.getvalue().splitlines()

    first, second = book.report(book.start(0), [0.9123]), book.start(1)
    assert new_lines() == []
    book.end(second, Failure.CODE, TRACEBACK)
    assert new_lines() == [
        "trial 0001 FAILED CODE in 41 s (1/4): ValueError: the [rate] is too high"
    ]
    book.end(first)
    assert new_lines() == ["trial 0000 COMPLETED val_accuracy=0.9123 in 41 s (2/4, best 0.9123)"]
    # Handed out, lost, handed out again and ended between two looks.
    book.end(book.start(2), Failure.PREEMPTED, "worker worker-0 left", lost=True)
    book.end(book.report(book.start(2, attempt=2), [0.5]))
    assert sorted(new_lines()) == [
        "trial 0002 LOST, it will run again: worker worker-0 left",
        "trial 0002 attempt 2 COMPLETED val_accuracy=0.5 in 41 s (3/4, best 0.9123)",
    ]
    # A failed trial that is tried once more has not ended, and does not count twice.
    book.wait(1, attempt=2)
    assert new_lines() == []
    again = book.report(book.start(1, attempt=2), [0.95])
    assert new_lines() == []
    book.end(again)
    assert new_lines() == [
        "trial 0001 attempt 2 COMPLETED val_accuracy=0.95 in 41 s (3/4, best 0.95)"
    ]
    progress.close()
    book.close()


def test_progress_says_first_what_was_there_before(ended: Book) -> None:
    out = io.StringIO()
    progress = Progress(ended.run, out)
    progress.update()
    progress.close()
    assert out.getvalue() == "so far 4/10, best 0.95\n"


def test_progress_costs_the_same_with_many_trials(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "many", wanted=10_000)
    effects = []
    for trial in range(5000):
        record = TrialRecord(
            trial_id=f"{trial:04d}",
            attempt=1,
            state=TrialState.COMPLETED,
            params={"rate": 0.5},
            engine="keras-tuner",
            sampler="random",
            sampler_impl="random",
            seed=trial,
            study_digest=book.study.digest,
            value=0.5,
            asked_seq=trial,
            ended_seq=trial,
        )
        effects.append(StoreAttempt(Attempt(record, fence=trial + 1)))
    book.writer.commit(effects, time.time()).result()
    progress = Progress(book.run, io.StringIO())
    began = time.process_time()
    for _ in range(100):
        progress.update()
    # To read all of them a hundred times takes several seconds.
    assert time.process_time() - began < 0.5
    progress.close()
    book.close()


def test_watch_follows_a_run_to_its_end(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "watched")
    attempt = book.report(book.start(0), [0.5])
    with background("watch", "watched", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout and process.stdout.readline() == "run watched\n"
        # What ended before its first look it would count, and not tell.
        time.sleep(1.0)
        book.end(attempt)
        line = process.stdout.readline()
        assert line == "trial 0000 COMPLETED val_accuracy=0.5 in 41 s (1/10, best 0.5)\n"
        book.close()
        rest = process.communicate(timeout=20)[0]
    # The status of a search that was left with work to do.
    assert process.returncode == 75
    for part in ("watched STOPPED: 1 of 10", "best trial 0000: val_accuracy=0.5", "resume watched"):
        assert part in rest


def test_watch_as_json_is_a_status_at_each_change(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "watched")
    attempt = book.report(book.start(0), [0.5])
    with background("watch", "watched", "--json", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout
        first = strict(process.stdout.readline())
        assert (list(first), first["state"]) == (STATUS_KEYS, "RUNNING")
        # Nothing is said of time alone.
        time.sleep(1.5)
        book.end(attempt)
        second = strict(process.stdout.readline())
        assert (first["trials"]["running"], second["trials"]["completed"]) == (1, 1)
        book.close()
        (last,) = process.communicate(timeout=20)[0].splitlines()
    assert (process.returncode, strict(last)["state"]) == (75, "STOPPED")
    done = say("watch", book, "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (75, 1)


def test_watch_shows_a_live_table_on_a_terminal(live: Book) -> None:
    ours, theirs = pty.openpty()
    arguments = ("watch", "living", "--runs", str(live.run.folder.parent))
    seen = b""
    with background(*arguments, stdout=theirs) as process:
        os.close(theirs)

        def has_all() -> bool:
            nonlocal seen
            seen += os.read(ours, 65536)
            return all(part in seen for part in (b"4/10", b"0003", b"best  0.95", b"rate=0.03"))

        wait_until(has_all, "the running trial and the best one", 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)


# --- tensorboard -----------------------------------------------------------------------


def test_tensorboard_serves_until_ctrl_c(ended: Book) -> None:
    arguments = ("tensorboard", "finished", "--port", "0", "--runs", str(ended.run.folder.parent))
    with background(*arguments) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://") and url.endswith("#hparams")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=20) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        with pytest.raises(OSError, match="refused"):
            opener.open(url, timeout=5)


def test_runs_of_different_spaces_share_no_table(tmp_path: pathlib.Path) -> None:
    runs = tmp_path / "runs"
    other = SearchSpace([Parameter("depth", Kind.INT, low=1, high=3)])
    Book(runs, "one").close()
    Book(runs, "two", space=other).close()
    done = launch("tensorboard", "one", "two", "--runs", str(runs))
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs one and two differ in their space" in done.stderr


# --- check and doctor ------------------------------------------------------------------

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
    assert found["supported"]["keras-tuner"]["grid"] == ["none"]


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
