#!/usr/bin/env python3
"""The door: ``python launch.py VERB``."""

import sys

from cluster.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
