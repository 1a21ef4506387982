"""A worker: an agent that talks to the chief, and one trial process at a time.

The agent never imports TensorFlow, so it answers for its lease whatever a trial does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import secrets
import signal
import socket
import tempfile
import threading
import time

import grpc

from hpo import env
from hpo.child import end_own_group
from hpo.engines.keras_tuner.client import (
    ChiefClient,
    Granted,
    LostError,
    Stopped,
    Terms,
    UnknownError,
)
from hpo.errors import RefusedError
from hpo.protocol import Verdict
from hpo.runner import Outcome, TrialOrder
from hpo.study import digest_of
from hpo.trial import Failure
from hpo.trial_process import Died, Message, Offered, Reported, TrialProcess, TrialProcesses

log = logging.getLogger("tunefleet.worker")

_LOOK_S = 0.1
_EXIT_DRAINED = 75
_EXIT_GONE = 3
# As a shell says it: ended by SIGTERM. `run` replaces such a worker, and no drained one.
_EXIT_TERMINATED = 128 + signal.SIGTERM


class Worker:
    """One worker's agent. ``run`` answers the exit status."""

    def __init__(
        self,
        worker_id: str,
        address: str,
        token: str,
        study_file: pathlib.Path,
        processes: TrialProcesses,
    ) -> None:
        self._id = worker_id
        self._study_file = study_file
        self._incarnation = secrets.token_hex(8)
        self._client = ChiefClient(address, token, worker_id, self._incarnation)
        self._processes = processes
        self._fence = 0
        self._lost = threading.Event()
        self._leaving = threading.Event()

    def run(self) -> int:
        """Works until the chief says that the study is done (0) or drained (75).

        Raises RefusedError where the chief refuses this worker, PlaceError where the chief
        is gone.
        """
        terms = self._join()
        threading.Thread(target=self._beat, args=(terms.lease_s,), daemon=True).start()
        with tempfile.TemporaryDirectory(prefix=f"tunefleet-{self._id}-") as scratch:
            try:
                return self._work(terms, pathlib.Path(scratch))
            finally:
                self._client.leave()
                self._client.close()

    def leave_soon(self) -> None:
        """Asked by the host to go: what runs is given back, and the agent leaves."""
        self._leaving.set()

    def _join(self) -> Terms:
        device = os.environ.get(env.DEVICE) or "cpu"
        digest = digest_of(self._study_file)
        terms = self._client.join(socket.gethostname(), os.getpid(), device, digest)
        log.info("joined as %s on %s", self._id, device)
        return terms

    def _work(self, terms: Terms, scratch: pathlib.Path) -> int:
        while not self._leaving.is_set():
            try:
                answer = self._client.create_trial(self._id)
                if isinstance(answer, Stopped):
                    log.info("the search is %s", answer.reason)
                    return 0 if answer.reason == "done" else _EXIT_DRAINED
                if answer is not None:
                    self._run_trial(answer, terms, scratch)
            except UnknownError:
                log.info("the lease had run out, joining again")
                self._join()
        return _EXIT_TERMINATED if os.environ.get(env.SUPERVISED) else _EXIT_DRAINED

    def _run_trial(self, granted: Granted, terms: Terms, scratch: pathlib.Path) -> None:
        log.info("trial %s, attempt %d: %s", granted.trial_id, granted.attempt, granted.params)
        self._lost.clear()
        self._fence = granted.fence
        log_file = scratch / f"{granted.trial_id}-{granted.attempt}.log"
        trial = self._processes.start(_order(granted, terms), log_file, scratch)
        try:
            outcome = self._attend(trial, granted)
            self._tell_end(granted, outcome, log_file)
        except LostError:
            log.info("trial %s is no longer ours", granted.trial_id)
        finally:
            trial.kill()
            self._fence = 0
            log_file.unlink(missing_ok=True)

    def _attend(self, trial: TrialProcess, granted: Granted) -> Outcome:
        """Relays between the trial and the chief until its end; LostError if it is taken away."""
        while not self._lost.is_set() and not self._leaving.is_set():
            message: Message | None = trial.next_message(_LOOK_S)
            if isinstance(message, Outcome):
                return message
            if isinstance(message, Died):
                return Outcome(Failure.CODE, _obituary(message.exit_code))
            if isinstance(message, Reported):
                trial.answer(self._client.report(granted, message.report))
            elif isinstance(message, Offered):
                trial.answer(self._client.wants_weights(granted, message.value))
        raise LostError

    def _tell_end(self, granted: Granted, outcome: Outcome, log_file: pathlib.Path) -> None:
        """Everything that belongs to the trial goes to the chief before its end does."""
        if log_file.exists() and log_file.stat().st_size:
            self._client.send_log(granted, log_file.read_bytes())
        if outcome.weights:
            self._client.send_weights(granted, outcome.weights)
            outcome.weights.unlink()
        if outcome.failure:
            self._client.explain(granted, outcome.failure, outcome.error or "")
        self._client.end(granted, completed=outcome.failure is None)
        log.info("trial %s ended: %s", granted.trial_id, outcome.failure or "completed")

    def _beat(self, lease_s: float) -> None:
        """Renews the lease thrice in its time; runs in a thread of its own."""
        while not self._leaving.wait(lease_s / 3):
            fence = self._fence
            try:
                verdict = self._client.beat(fence)
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED):
                    self._lost.set()
                log.debug("no heartbeat: %s", error.code())
            except ValueError:
                return
            else:
                if verdict is Verdict.LOST and fence == self._fence:
                    self._lost.set()


def _order(granted: Granted, terms: Terms) -> TrialOrder:
    return TrialOrder(
        trial_id=granted.trial_id,
        params=granted.params,
        seed=granted.seed,
        split_seed=terms.split_seed,
        objective=terms.study.objective,
        direction=terms.study.direction,
        epochs=granted.epochs or terms.epochs,
        train_examples=terms.train_examples,
        space=terms.study.space,
    )


def _obituary(exit_code: int | None) -> str:
    """What to say of a trial process that ended without an outcome."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"the trial's process was ended by {name} (out of memory, if nobody sent it)"
    return f"the trial's process left with status {exit_code} in the middle of the trial"


def work(worker_id: str, address: str, token: str, study_file: pathlib.Path) -> int:
    """Runs a worker in this process until it is told to leave; answers its exit status."""
    processes = prepare(study_file)
    worker = Worker(worker_id, address, token, study_file, processes)
    signal.signal(signal.SIGTERM, lambda *_: worker.leave_soon())
    if os.environ.get(env.SUPERVISED):
        threading.Thread(target=_die_with_supervisor, daemon=True).start()
    try:
        return worker.run()
    except RefusedError as error:
        if not os.environ.get(env.SUPERVISED):
            raise
        # `run` starts another in its place.
        log.error("%s", error)
        return _EXIT_GONE


def prepare(study_file: pathlib.Path) -> TrialProcesses:
    """Starts the fork server, which imports the study while the worker does something else."""
    # Trials inherit this: a Ctrl-C is for whoever started us, not for the middle of an epoch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _pin()
    processes = TrialProcesses(study_file)
    processes.warm_up()
    return processes


def _pin() -> None:
    """Keeps this process and its trials on the processors that the launcher gave it."""
    if cpus := os.environ.get(env.CPUS):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})


def _die_with_supervisor() -> None:
    """`run` holds the other end of standard input; when it is gone, so are we."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            time.sleep(0)
    log.info("the process that started this worker is gone")
    end_own_group()
