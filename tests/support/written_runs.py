"""Runs whose ledgers a test writes itself, as a chief would."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import h5py
import numpy as np
import pytest

from hpo.ledger import LedgerWriter
from hpo.parameter import Kind, Parameter
from hpo.protocol import Attempt, StoreAttempt, StoreReport, StoreWorker, WorkerInfo, WorkerRow
from hpo.run import SearchRequest, create_run
from hpo.space import SearchSpace
from hpo.study import Form, Study, digest_of
from hpo.trial import Direction, Failure, Report, TrialRecord, TrialState
from tests.support.cli_runs import ROOT, launch

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
