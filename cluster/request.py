"""What was typed as a request: refused here where an engine, a sampler or a study cannot do it."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys

from cluster import options
from hpo import env, settings
from hpo.engines.base import check_supported, load_engine
from hpo.errors import UsageError
from hpo.registry import PRUNERS, SAMPLERS
from hpo.run import SearchRequest
from hpo.samplers.start import in_space, read_points
from hpo.study import Study, digest_of, find_study


def request_of(args: argparse.Namespace, path: pathlib.Path) -> SearchRequest:
    """What was typed, refused here where an engine cannot do it."""
    engine = load_engine(args.engine)
    SAMPLERS.check(args.sampler)
    PRUNERS.check(args.pruner)
    check_supported(engine, args.sampler, args.pruner)
    _check_sampler(args)
    return SearchRequest(
        study=str(path),
        study_digest=digest_of(path),
        engine=args.engine,
        sampler=args.sampler,
        pruner=args.pruner,
        trials=args.trials,
        epochs=args.epochs,
        train_examples=args.train_examples,
        seed=args.seed,
        settings=settings.together(args.set, decides_results=True),
        start=read_points(args.start) if args.start else None,
        from_run=args.from_run,
    )


def read_here(args: argparse.Namespace) -> Study:
    """The study that another place is to search, as it is read here; its warnings are shown."""
    from hpo.probe import read_study

    environ = {**os.environ, **env.data_variables(args.data_dir)}
    reading = read_study(find_study(args.study), environ, args.debug)
    for warning in reading.warnings:
        print(f"launch.py: {warning}", file=sys.stderr)
    study: Study = reading.study
    return study


def limits_of(args: argparse.Namespace) -> dict[str, float]:
    """The rules that were typed; the others keep their defaults."""
    typed = {name: getattr(args, name) for name in options.LIMITS}
    return {options.LIMITS[name]: value for name, value in typed.items() if value is not None}


def _check_sampler(args: argparse.Namespace) -> None:
    """Raises UsageError where the sampler lacks a package, or cannot take given points."""
    sampler = SAMPLERS.load(args.sampler)
    sampler.check_installed()
    for option, value in (("--start", args.start), ("--from", args.from_run)):
        if value is not None and not sampler.takes_given:
            raise UsageError(
                f"{option} does not go with sampler {args.sampler!r}, whose points are fixed: "
                "leave it out, or take another sampler"
            )


def checked(
    args: argparse.Namespace, request: SearchRequest, study: Study
) -> tuple[Study, SearchRequest]:
    """The study and the request as they are searched, now that the study is known.

    Raises SpaceError or UsageError where the sampler, a setting or a given point does not go
    with the study.
    """
    study = dataclasses.replace(study, epochs=request.epochs or study.epochs)
    SAMPLERS.load(request.sampler).check(study)
    others = settings.together(args.set, decides_results=False)
    settings.check_study(request.settings | others, study)
    if request.start:
        start = in_space(args.start, request.start, study.space)
        request = dataclasses.replace(request, start=start)
    return study, request
