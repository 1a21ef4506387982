"""A worker's agent as a Ray actor: it runs one trial process at a time.

It never imports TensorFlow, and is used for one attempt after another. Ray asks it for a
step, which ends when the trial says something; to be asked for the next step means that the
trial may go on. Whatever else the trial should hear comes by :meth:`Agent.hear` before that.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from hpo import env, memory
from hpo.engines.ray_tune.messages import ORDER, SAID, CheckpointWanted, Order, Said, Setup, Silent
from hpo.gpu_memory import limit_mb
from hpo.link import Outcome
from hpo.precision import in_record
from hpo.study import digest_of
from hpo.trial import Answer
from hpo.trial_process import (
    Died,
    Message,
    Offered,
    Reported,
    Saved,
    TrialProcess,
    TrialProcesses,
    obituary,
)

# How long a step waits for a trial that says nothing: at first only until the leader can
# know which process runs it, then so that it hears in time that it should end.
_FIRST_S, _PATIENCE_S = 0.3, 1.0
_LOG_BYTES = 64 * 1024
_PART_BYTES = 1 << 20


class Agent(tune.Trainable):  # type: ignore[misc]
    """Runs the attempts that Ray hands to its actor."""

    _order: Order
    # What the trial hears at the next step; None where it expects nothing.
    _expected: Answer | bool | None
    _trial: TrialProcess | None
    _parts: Iterator[bytes | str] | None
    _checkpoint: pathlib.Path | None
    # Whether a checkpoint was asked for, and whether the leader knows that this actor runs.
    _asked: bool
    _spoke: bool
    config: dict[str, Any]

    def setup(self, config: dict[str, Any], setup: Setup) -> None:
        """The actor starts: its fork server imports the study at once."""
        # Where Ray's worker started is run again by each process of multiprocessing.
        sys.modules["__main__"].__file__ = None
        # A Ctrl-C is for whoever leads the search, not for the middle of an epoch.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        device = ",".join(f"gpu:{gpu}" for gpu in gpus) or "cpu"
        self._device = in_record(device, setup.terms.settings.get("precision"))
        os.environ.update(env.threads(setup.threads))
        if gpus:
            os.environ.update(env.gpu_memory(limit_mb(setup.gpus, gpus[0])))
        else:
            os.environ[env.VISIBLE_GPUS] = "-1"
        self._terms = setup.terms
        # Among the files of Ray's session, which go with it whatever happens to this process.
        self._scratch = pathlib.Path(tempfile.mkdtemp(prefix="agent-", dir=self.logdir))
        self._processes = TrialProcesses(_study_file(setup, self._scratch))
        self._processes.warm_up()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another attempt takes the place of the one before."""
        self._end()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """The actor is no longer needed."""
        self._end()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def step(self) -> dict[str, Any]:
        """What the trial says next."""
        if self._trial is None and self._order.has_checkpoint and not self._asked:
            self._asked = True
            return self._say(CheckpointWanted())
        if self._trial is None:
            self._start()
        elif self._expected is not None:
            self._trial.answer(self._expected)
            self._expected = None
        assert self._trial is not None
        message = self._trial.next_message(_PATIENCE_S if self._spoke else _FIRST_S)
        self._spoke = True
        if isinstance(message, Died):
            message = obituary(message.exit_code, memory.kills() > self._killed_before)
        self._note(message)
        return self._say(Silent() if message is None else message)

    def hear(self, answer: Answer | bool) -> None:
        """What the trial hears, instead of "go on" or "not wanted", at the next step."""
        self._expected = answer

    def part(self) -> bytes | str:
        """The next part of the file that the trial left; behind the last one its checksum."""
        assert self._parts is not None
        return next(self._parts)

    def take(self, checkpoint: bytes) -> None:
        """The checkpoint that the attempt goes on from."""
        self._checkpoint = self._scratch / f"{self._order.trial_id}.checkpoint"
        self._checkpoint.write_bytes(checkpoint)

    def _begin(self, config: dict[str, Any]) -> None:
        self._order = config[ORDER]
        # It would travel with every result.
        self.config = {}
        self._trial = self._expected = self._parts = self._checkpoint = None
        self._asked = self._spoke = False
        self._log = self._scratch / f"{self._order!r}.log"

    def _start(self) -> None:
        self._killed_before = memory.kills()
        order = self._terms.order(self._order, self._checkpoint)
        self._trial = self._processes.start(order, self._log, self._scratch)

    def _end(self) -> None:
        if self._trial is not None:
            self._trial.kill()
        for path in self._scratch.glob(f"{self._order.trial_id}*"):
            path.unlink()

    def _note(self, message: Message | None) -> None:
        """What a message calls for: an answer at the next step, or a file to be taken."""
        if isinstance(message, Reported):
            self._expected = Answer.GO_ON
        elif isinstance(message, Offered):
            self._expected = False
        elif isinstance(message, Saved):
            self._parts = _parts(message.path)
        elif isinstance(message, Outcome) and message.weights:
            self._parts = _parts(message.weights)

    def _say(self, message: Message | Silent | CheckpointWanted) -> dict[str, Any]:
        log = _tail(self._log) if isinstance(message, Outcome) else b""
        return {SAID: Said(message, self._device, log)}


def _study_file(setup: Setup, scratch: pathlib.Path) -> pathlib.Path:
    """The study's file on this host: the leader's own where it is the same one, else a copy."""
    path = pathlib.Path(setup.path)
    if path.is_file() and digest_of(path) == setup.terms.study.digest:
        return path
    copy = scratch / path.name
    copy.write_bytes(setup.source)
    return copy


def _parts(path: pathlib.Path) -> Iterator[bytes | str]:
    """A file as it travels; once all of it has, it is gone here."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_PART_BYTES):
            digest.update(data)
            yield data
    path.unlink()
    yield digest.hexdigest()


def _tail(path: pathlib.Path) -> bytes:
    return path.read_bytes()[-_LOG_BYTES:] if path.exists() else b""
