#!/usr/bin/env python3
"""The door: ``python launch.py VERB``."""

import sys

from cluster.cli import main
from hpo.leaving import leave

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
