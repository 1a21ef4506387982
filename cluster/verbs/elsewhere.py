"""The verbs that are about another place than this host: `--on PLACE`, or a run's handle."""

from __future__ import annotations

import argparse

from cluster.launchers.base import launcher_for, launcher_of, parse_handle
from hpo.errors import UsageError


def render(args: argparse.Namespace) -> int:
    """Prints what `submit` would send."""
    return launcher_for(args.on, args).render(args)


def submit(args: argparse.Namespace) -> int:
    """Starts a search elsewhere, or attaches to it."""
    return launcher_for(args.on, args).submit(args)


def list_runs(args: argparse.Namespace) -> int:
    """Prints the runs there are elsewhere."""
    return launcher_for(args.on, args).list_runs(args)


def doctor(args: argparse.Namespace) -> int:
    """Prints what another place has and lacks."""
    return launcher_for(args.on, args).doctor(args)


def of_run(verb: str, args: argparse.Namespace) -> int:
    """Does ``verb`` with the run whose handle was typed."""
    typed = args.run
    if isinstance(typed, list):
        if len(typed) > 1:
            raise UsageError("a run elsewhere is opened by itself: give one handle")
        typed = typed[0]
    handle = parse_handle(typed)
    return launcher_of(handle).of_run(verb, handle, args)
