"""The end of a process, which waits for no sampler that still thinks."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import NoReturn

# How the names of threads begin in which a sampler thinks.
SAMPLER = "sampler"


def leave(status: int) -> NoReturn:
    """Ends this process with ``status``.

    Python would wait for every thread that is no daemon, and one of these that is in the
    middle of a library in C++ as Python ends takes the process down with another status.
    """
    if any(thread.name.startswith(SAMPLER) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        logging.shutdown()
        os._exit(status)
    sys.exit(status)
