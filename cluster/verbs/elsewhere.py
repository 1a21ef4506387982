"""The verbs that are about another place than this host: `--on PLACE`, or a run's handle."""

from __future__ import annotations

import argparse

from cluster.launchers.base import load_launcher


def render(args: argparse.Namespace) -> int:
    """Prints what `submit` would send."""
    return load_launcher(args.on).render(args)
