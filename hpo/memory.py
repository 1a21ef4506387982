"""Telling that memory ran out, on the host or on a GPU."""

from __future__ import annotations

import pathlib

_COUNTERS = pathlib.Path("/proc/vmstat")
# By name, since none of their packages is imported for this.
_NAMES = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
_WORDS = ("RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY", "std::bad_alloc")


def ran_out(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        names = [kind.__name__ for kind in type(seen).__mro__]
        if any(name in names for name in _NAMES) or any(word in str(seen) for word in _WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def kills() -> int:
    """How many processes of this host the kernel has ended for want of memory since it started.

    0 where the system does not tell.
    """
    try:
        lines = _COUNTERS.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
