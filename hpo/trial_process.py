"""A trial in a process of its own, forked from a server that has the study in memory.

The agent that starts it never imports TensorFlow. The process ends with its agent, however
that ends, and takes its own children along: a ghost would keep its GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import pathlib
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hpo import child, env, preload
from hpo.errors import PlaceError
from hpo.link import Outcome, TrialOrder
from hpo.runner import run_trial
from hpo.study import StudyModule
from hpo.trial import Answer, Failure, Report

# The child says this instead of an outcome where a fork cannot run the study.
_NEEDS_FRESH_PROCESS = "needs a fresh process"


@dataclasses.dataclass(frozen=True)
class Reported:
    """The trial asks whether to go on after a step."""

    report: Report


@dataclasses.dataclass(frozen=True)
class Offered:
    """The trial asks whether its weights, worth ``value``, are wanted."""

    value: float


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint after ``epoch`` lies at ``path``, to be taken away."""

    path: pathlib.Path
    epoch: int


@dataclasses.dataclass(frozen=True)
class Resumed:
    """The trial goes on after ``epoch`` of an earlier attempt."""

    epoch: int


@dataclasses.dataclass(frozen=True)
class Died:
    """The process is gone without an outcome; a negative ``exit_code`` is a signal's."""

    exit_code: int | None


def obituary(exit_code: int | None, memory_ran_out: bool) -> Outcome:
    """What a trial process died of that ended without an outcome.

    ``memory_ran_out`` says whether the kernel has killed for memory while it ran.
    """
    if exit_code is None or exit_code >= 0:
        said = f"the trial's process left with status {exit_code} in the middle of the trial"
        return Outcome(Failure.CODE, said)
    name = signal.Signals(-exit_code).name
    if name == "SIGKILL" and memory_ran_out:
        return Outcome(Failure.OOM, "the kernel killed the trial's process: memory ran out")
    return Outcome(
        Failure.CODE, f"the trial's process was ended by {name}, sent by itself or others"
    )


Message = Reported | Offered | Saved | Resumed | Outcome | Died


Question = Callable[[StudyModule], dict[str, Any]]


class TrialProcesses:
    """Starts trials of one study, one after another, from a fork server made for it.

    Environment that a trial needs (devices, threads) must stand before the first is started.
    """

    def __init__(self, study_file: pathlib.Path) -> None:
        os.environ[env.PRELOAD] = str(study_file)
        # The fork server runs with this interpreter's path, which it does not inherit.
        os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        forkserver = multiprocessing.get_context("forkserver")
        forkserver.set_forkserver_preload(["hpo.trial_process"])
        self._context: Any = forkserver

    def warm_up(self) -> None:
        """Starts the fork server now, so that it imports while the agent waits for a trial."""
        from multiprocessing import forkserver

        forkserver.ensure_running()

    def ask(self, question: Question) -> str:
        """The answer to ``question`` about the study, as :func:`hpo.child.reply` gives it.

        It is computed in a fork of the server. Empty where that cannot be, or died of it:
        a process of its own may do better, or knows what to say.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(theirs, question))
        process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            return str(ours.recv())
        return ""

    def start(self, order: TrialOrder, log: pathlib.Path, scratch: pathlib.Path) -> TrialProcess:
        """A running trial; its output goes to the file ``log``."""
        trial = TrialProcess(self._context, order, log, scratch)
        if not trial.fresh_process_needed():
            return trial
        trial.kill()
        self._context = multiprocessing.get_context("spawn")
        return TrialProcess(self._context, order, log, scratch)


class TrialProcess:
    """One running trial, seen from its agent."""

    def __init__(
        self, context: Any, order: TrialOrder, log: pathlib.Path, scratch: pathlib.Path
    ) -> None:
        self._ours, theirs = context.Pipe()
        forked = context.get_start_method() == "forkserver"
        arguments = (theirs, order, log, scratch, forked)
        self._process = context.Process(target=_main, args=arguments, name=order.trial_id)
        self._process.start()
        theirs.close()
        self.pid: int = self._process.pid

    def fresh_process_needed(self) -> bool:
        """Whether the study ran operations on import, so that a fork of it would hang."""
        try:
            return bool(self._ours.recv() == _NEEDS_FRESH_PROCESS)
        except EOFError:
            return False

    def next_message(self, timeout_s: float) -> Message | None:
        """What the trial says next; None if it says nothing for ``timeout_s`` seconds."""
        ready = multiprocessing.connection.wait([self._ours, self._process.sentinel], timeout_s)
        if self._ours in ready or self._ours.poll():
            with contextlib.suppress(EOFError, ConnectionResetError):
                return self._ours.recv()  # type: ignore[no-any-return]
        elif not ready:
            return None
        self._process.join()
        return Died(self._process.exitcode)

    def answer(self, answer: Answer | bool) -> None:
        """Answers a Reported, or yes or no to an Offered."""
        with contextlib.suppress(BrokenPipeError):
            self._ours.send(answer)

    def kill(self) -> None:
        """Ends the trial and all its children at once, and waits until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.join()

    def join(self) -> None:
        """Waits until the process is gone and gives its resources back."""
        self._process.join()
        self._ours.close()
        self._process.close()


def _main(
    conn: multiprocessing.connection.Connection[Any, Any],
    order: TrialOrder,
    log: pathlib.Path,
    scratch: pathlib.Path,
    forked: bool,
) -> None:
    """The trial process."""
    _end_with_agent()
    if forked and preload.ran_operations():
        conn.send(_NEEDS_FRESH_PROCESS)
        return
    conn.send("")

    with _output_to(log):
        try:
            module = preload.study()
        except Exception:  # Told to the chief as the trial's outcome
            outcome = Outcome(Failure.CODE, traceback.format_exc())
        else:
            outcome = run_trial(module, order, _ToAgent(conn), scratch)
    conn.send(outcome)
    # Interpreters with TensorFlow in them take long to leave, or hang; all is said by now.
    os._exit(0)


def _answer(conn: multiprocessing.connection.Connection[Any, Any], question: Question) -> None:
    """A process that answers one question about the study."""
    _end_with_agent()
    if not preload.ran_operations():
        with _output_to(pathlib.Path(os.devnull)):
            text = child.reply(lambda: question(preload.study()))
        conn.send(text)
    os._exit(0)


class _ToAgent:
    """The trial's link to its agent."""

    def __init__(self, conn: multiprocessing.connection.Connection[Any, Any]) -> None:
        self._conn = conn

    def report(self, report: Report) -> Answer:
        self._conn.send(Reported(report))
        return Answer(self._conn.recv())

    def wanted(self, value: float) -> bool:
        self._conn.send(Offered(value))
        return bool(self._conn.recv())

    def saved(self, path: pathlib.Path, epoch: int) -> None:
        # Not waited for: the trial trains on while its checkpoint travels.
        self._conn.send(Saved(path, epoch))

    def resumed(self, epoch: int) -> None:
        self._conn.send(Resumed(epoch))


def _end_with_agent() -> None:
    """Lets the kernel end this process and its children when the agent's end of a pipe closes."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    parent = multiprocessing.process.parent_process()
    if parent is None:
        raise PlaceError("a trial process must be started by an agent")
    sentinel = int(parent.sentinel)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid())
    flags = fcntl.fcntl(sentinel, fcntl.F_GETFL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([sentinel], [], [], 0)[0]:
        # It closed before the kernel was asked to tell.
        os._exit(1)


@contextlib.contextmanager
def _output_to(log: pathlib.Path) -> Iterator[None]:
    """What the study prints, also from native code, goes to ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
