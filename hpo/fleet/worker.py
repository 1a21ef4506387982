"""A worker: an agent that talks to the chief, and one trial process at a time.

The agent never imports TensorFlow, so it answers for its lease whatever a trial does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import secrets
import signal
import socket
import tempfile
import threading
import time

import grpc

from hpo import env, memory
from hpo._internal import process_tree
from hpo.child import end_own_tree
from hpo.crew import EXIT_DISMISSED
from hpo.errors import PlaceError, RefusedError
from hpo.fleet.client import (
    ChiefClient,
    Granted,
    Joined,
    LostError,
    Stopped,
    UnknownError,
)
from hpo.link import Outcome
from hpo.precision import check_here
from hpo.protocol import Verdict
from hpo.study import digest_of
from hpo.token_file import Secret
from hpo.trial import Answer, Failure
from hpo.trial_process import (
    Died,
    Message,
    Offered,
    Reported,
    Resumed,
    Saved,
    TrialProcess,
    TrialProcesses,
    obituary,
)

log = logging.getLogger("tunefleet.worker")

_LOOK_S = 0.1
_EXIT_DRAINED = 75
_STOPPED = {"done": 0, "drained": _EXIT_DRAINED, "dismissed": EXIT_DISMISSED}
_EXIT_GONE = 3
# As a shell says it: ended by SIGTERM. `run` replaces such a worker, and no drained one.
_EXIT_TERMINATED = 128 + signal.SIGTERM
_EXIT_INTERRUPTED = 128 + signal.SIGINT
# A finite number of seconds that is none in practice.
_NO_LIMIT_S = 1e9


class Worker:
    """One worker's agent. ``run`` answers the exit status."""

    def __init__(
        self,
        worker_id: str,
        address: str,
        secret: Secret,
        study_file: pathlib.Path,
        processes: TrialProcesses,
    ) -> None:
        self._id = worker_id
        self._study_file = study_file
        self._incarnation = secrets.token_hex(8)
        self._client = ChiefClient(
            address, secret.token, worker_id, self._incarnation, secret.certificates
        )
        self._processes = processes
        self._grace_s = env.grace_s()
        self._fence = 0
        self._lost = threading.Event()
        self._gone = threading.Event()
        # When a trial that still runs is given back. A plain number: set by a signal's handler.
        self._leave_by = math.inf
        self._interrupted = False

    def run(self) -> int:
        """Works until the chief says that the study is done (0) or drained (75).

        Raises RefusedError where the chief refuses this worker, PlaceError where the chief
        is gone.
        """
        try:
            return self._join_and_work()
        except PlaceError:
            if not self._is_leaving:
                raise
            return self._farewell

    @property
    def _farewell(self) -> int:
        """The exit status after a signal."""
        if self._interrupted:
            return _EXIT_INTERRUPTED
        return _EXIT_TERMINATED if os.environ.get(env.SUPERVISED) else _EXIT_DRAINED

    def _join_and_work(self) -> int:
        joined = self._join()
        threading.Thread(target=self._beat, args=(joined.lease_s,), daemon=True).start()
        with tempfile.TemporaryDirectory(prefix=f"tunefleet-{self._id}-") as scratch:
            try:
                return self._work(joined, pathlib.Path(scratch))
            finally:
                self._gone.set()
                self._client.leave()
                self._client.close()

    def leave_soon(self, number: int) -> None:
        """Asked by a signal to go: a trial may end within the grace period, or is given back.

        Ctrl-C leaves it all the time it takes. Asked again, the worker gives it back at once.
        """
        grace_s = _NO_LIMIT_S if number == signal.SIGINT else self._grace_s
        self._leave_by = time.monotonic() + (0.0 if self._is_leaving else grace_s)
        self._interrupted = number == signal.SIGINT
        # A chief that is away is nothing that a worker on its way out waits for.
        self._client.give_up_at = self._leave_by if self._fence else 0.0

    @property
    def _is_leaving(self) -> bool:
        return self._leave_by < math.inf

    def _join(self) -> Joined:
        device = os.environ.get(env.DEVICE) or "cpu"
        digest = digest_of(self._study_file)
        joined = self._client.join(socket.gethostname(), os.getpid(), device, digest)
        # `run` has looked at its own host; this may be another.
        check_here(joined.terms.settings.get("precision"), has_gpu="gpu:" in device)
        log.info("joined as %s on %s", self._id, device)
        return joined

    def _work(self, joined: Joined, scratch: pathlib.Path) -> int:
        while not self._is_leaving:
            try:
                answer = self._client.create_trial(self._id)
                if isinstance(answer, Stopped):
                    log.info("told to leave: %s", answer.reason)
                    return _STOPPED[answer.reason]
                # What was granted after it was asked to go is put back when it has left.
                if answer is not None and not self._is_leaving:
                    self._run_trial(answer, joined, scratch)
            except UnknownError:
                log.info("the lease had run out, joining again")
                self._join()
        return self._farewell

    def _run_trial(self, granted: Granted, joined: Joined, scratch: pathlib.Path) -> None:
        log.info("trial %s, attempt %d: %s", granted.trial_id, granted.attempt, granted.params)
        self._lost.clear()
        self._fence = granted.fence
        log_file = scratch / f"{granted.trial_id}-{granted.attempt}.log"
        killed_before = memory.kills()
        order = joined.terms.order(granted, self._checkpoint(granted, scratch))
        trial = self._processes.start(order, log_file, scratch)
        try:
            outcome = self._attend(trial, granted, joined.trial_timeout_s)
            if isinstance(outcome, Died):
                outcome = obituary(outcome.exit_code, memory.kills() > killed_before)
            self._tell_end(granted, outcome, log_file)
        except LostError:
            log.info("trial %s is no longer ours", granted.trial_id)
        finally:
            trial.kill()
            self._fence = 0
            log_file.unlink(missing_ok=True)

    def _checkpoint(self, granted: Granted, scratch: pathlib.Path) -> pathlib.Path | None:
        """The file to go on from, brought from the chief."""
        path = scratch / f"{granted.trial_id}.checkpoint"
        if not granted.has_checkpoint or not self._client.fetch_checkpoint(granted, path):
            return None
        return path

    def _attend(self, trial: TrialProcess, granted: Granted, limit_s: float) -> Outcome | Died:
        """Relays between the trial and the chief until its end; LostError if it is taken away.

        The chief ends a trial that takes too long by itself, but this is sooner: it would be
        heard of with the next heartbeat.
        """
        deadline = time.monotonic() + limit_s
        while not self._lost.is_set() and time.monotonic() < self._leave_by:
            if time.monotonic() > deadline:
                return Outcome(Failure.TIMEOUT, f"the trial ran for longer than {limit_s:g} s")
            message: Message | None = trial.next_message(_LOOK_S)
            if isinstance(message, Outcome | Died):
                return message
            if isinstance(message, Reported):
                trial.answer(self._answer(self._client.report(granted, message.report)))
            elif isinstance(message, Saved):
                self._client.send_checkpoint(granted, message.path, message.epoch)
                message.path.unlink()
            elif isinstance(message, Resumed):
                self._client.resume(granted, message.epoch)
            elif isinstance(message, Offered):
                trial.answer(self._client.wants_weights(granted, message.value))
        raise LostError

    def _answer(self, of_chief: Answer) -> Answer:
        """What the trial does after a step: a worker that has to go saves it first."""
        has_to_go = self._is_leaving and not self._interrupted
        return Answer.SUSPEND if of_chief is Answer.GO_ON and has_to_go else of_chief

    def _tell_end(self, granted: Granted, outcome: Outcome, log_file: pathlib.Path) -> None:
        """Everything that belongs to the trial goes to the chief before its end does."""
        if log_file.exists() and log_file.stat().st_size:
            self._client.send_log(granted, log_file.read_bytes())
        if outcome.weights:
            self._client.send_weights(granted, outcome.weights)
            outcome.weights.unlink()
        if outcome.suspended:
            outcome = dataclasses.replace(
                outcome, failure=Failure.PREEMPTED, error="the trial was saved and given back"
            )
        if outcome.failure:
            self._client.explain(granted, outcome.failure, outcome.error or "")
        self._client.end(granted, completed=outcome.failure is None)
        log.info("trial %s ended: %s", granted.trial_id, outcome.failure or "completed")

    def _beat(self, lease_s: float) -> None:
        """Renews the lease thrice in its time; runs in a thread of its own.

        Not while it has no trial: asking for one renews the lease too.
        """
        while not self._gone.wait(lease_s / 3):
            fence = self._fence
            if not fence:
                continue
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


def work(worker_id: str, address: str, secret: Secret, study_file: pathlib.Path) -> int:
    """Runs a worker in this process until it is told to leave; answers its exit status."""
    processes = prepare(study_file)
    worker = Worker(worker_id, address, secret, study_file, processes)
    signal.signal(signal.SIGTERM, lambda number, _: worker.leave_soon(number))
    if not os.environ.get(env.SUPERVISED):
        signal.signal(signal.SIGINT, lambda number, _: worker.leave_soon(number))
    else:
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
    process_tree.adopt_orphans()
    processes = TrialProcesses(study_file)
    processes.warm_up()
    if not os.environ.get(env.SUPERVISED):
        # `run` watches over the processes that it starts, and nobody over one started by hand.
        process_tree.watch_children()
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
    end_own_tree()
