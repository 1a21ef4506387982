#!/usr/bin/env python3
"""The command line: ``python launch.py VERB``."""

import sys

# Before anything is imported: an older Python cannot even read the rest.
if sys.version_info < (3, 11):  # noqa: UP036 - whoever types `python` may have any
    sys.stderr.write(
        "launch.py: Python 3.11 or newer is needed, and {} is {}.{}: use .venv/bin/python, which "
        "`make demo` sets up, or another one\n".format(sys.executable, *sys.version_info[:2])
    )
    sys.exit(2)

from cluster.cli import command

if __name__ == "__main__":
    command(sys.argv[1:])
