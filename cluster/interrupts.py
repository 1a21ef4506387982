"""SIGTERM and Ctrl-C as exceptions, so that what was begun is ended on the way out.

An exception that a signal's handler raises can get lost: where the interpreter compiles a module
or calls back from C, it drops whatever is raised. So the handler's exception is raised again
until somebody handles it.
"""

from __future__ import annotations

import functools
import signal
import sys

_AGAIN_S = 0.2


class TerminatedError(BaseException):
    """SIGTERM came."""


_ERRORS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: TerminatedError,
}


def raise_signals() -> None:
    """From now on SIGTERM raises TerminatedError, and SIGINT KeyboardInterrupt.

    One that is ignored stays so: a shell's background job must not end by a Ctrl-C.
    """
    for number in _ERRORS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """From now on neither of the two does anything, nor does SIGHUP."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (*_ERRORS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _: object) -> None:
    error = _ERRORS[number]
    signal.signal(signal.SIGALRM, functools.partial(_interrupt_again, error))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
    raise error


def _interrupt_again(error: type[BaseException], *_: object) -> None:
    if not _is_handled(error):
        raise error
    signal.setitimer(signal.ITIMER_REAL, 0)


def _is_handled(error: type[BaseException]) -> bool:
    """Whether an ``except`` or ``finally`` for ``error`` is running, or what that has called."""
    current = sys.exception()
    while current is not None and not isinstance(current, error):
        current = current.__context__
    return current is not None
