"""A Ray cluster as a place to search in."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import shlex
from collections.abc import Callable

from cluster import options, tables
from cluster.launchers.base import Handle, Launcher, parse_handle, say_submitted
from cluster.launchers.ray import parcel
from cluster.launchers.ray.changes import Changer
from cluster.launchers.ray.checks import examine
from cluster.launchers.ray.connection import Cluster, where
from cluster.launchers.ray.mirror import fetch, tensorboard
from cluster.launchers.ray.reading import Reader, list_runs
from cluster.launchers.ray.submission import Start, submit
from cluster.request import checked, read_here, request_of
from cluster.spec import DEFAULT_WORKERS
from hpo import env
from hpo.engines.base import load_engine
from hpo.errors import UsageError
from hpo.run import SearchRequest, check_id, new_id
from hpo.study import find_study

_PYTHON = "python"


class RayCluster(Launcher):
    """One job on a cluster that exists: the leader on its head, which Ray's actors work for."""

    scheme = "raycluster"
    engine = "ray"
    takes = ("address", "python")

    def check_engine(self, engine: str) -> None:
        """Raises UsageError for an engine whose workers are no actors of Ray's."""
        if load_engine(engine).roles(1)[1:]:
            raise UsageError(
                f"engine {engine} does not place its workers on a Ray cluster: "
                f"take --engine {self.engine}, or leave it out"
            )

    def render(self, args: argparse.Namespace) -> int:
        """Prints what would be sent, and the line that the job would run."""
        return self._show(self._start(args, self._request(args), args.id or "ID"))

    def submit(self, args: argparse.Namespace) -> int:
        """Starts the run, or attaches to it, and prints its handle and what is next."""
        request = self._request(args)
        cluster = None if args.dry_run else Cluster(where(args.address))
        study, request = checked(args, request, read_here(args))
        start = self._start(args, request, args.id or new_id(study))
        if cluster is None:
            return self._show(start)
        made = submit(cluster, start, wait=not args.unchecked)
        say_submitted(parse_handle(start.handle), made)
        return 0

    def list_runs(self, args: argparse.Namespace) -> int:
        """Prints the runs that the head remembers."""
        return list_runs(Cluster(where(args.address)), args.json)

    def doctor(self, args: argparse.Namespace) -> int:
        """Prints what the cluster has and lacks for a search."""
        python, workers = args.python or _PYTHON, args.workers or DEFAULT_WORKERS
        cluster = Cluster(where(args.address))
        found = examine(cluster, str(args.runs), python, workers, args.gpus_per_worker)
        if args.json:
            tables.print_json(found.to_json())
        else:
            rows = [("warning", text) for text in found.warnings]
            rows += [("missing", text) for text in found.missing]
            tables.print_pairs([*found.rows, *rows])
        return 1 if found.missing else 0

    def of_run(self, verb: str, handle: Handle, args: argparse.Namespace) -> int:
        """Does ``verb`` with a run."""
        verbs = [*_READING, *_CHANGING]
        if verb not in verbs:
            raise UsageError(f"{verb} does not go with {handle}: {', '.join(verbs)} do")
        reader = Reader(Cluster(where(handle.where)), handle, str(args.runs))
        if verb in _READING:
            return _READING[verb](reader, args)
        return _CHANGING[verb](Changer(reader), args)

    def fetch(self, handle: Handle, args: argparse.Namespace, folder: pathlib.Path) -> None:
        """Copies the run's ledger into ``folder``, by a job that reads it."""
        fetch(Reader(Cluster(where(handle.where)), handle, str(args.runs)).inside, folder)

    def _request(self, args: argparse.Namespace) -> SearchRequest:
        """What was typed, as a request; UsageError for what cannot be done there."""
        typed = options.typed_again(args.arguments)
        if "--engine" not in typed:
            args.engine = self.engine
        self.check_engine(args.engine)
        if args.from_run:
            raise UsageError(
                "--from names a run here, which the cluster does not have: give points by --start"
            )
        return request_of(args, find_study(args.study))

    def _start(self, args: argparse.Namespace, request: SearchRequest, run_id: str) -> Start:
        path = pathlib.Path(request.study)
        request = dataclasses.replace(request, study=parcel.study_in(path))
        return Start(
            run_id="ID" if run_id == "ID" else check_id(run_id),
            handle=str(Handle(self.scheme, where(args.address), run_id)),
            words=["run", request.study, f"--id={run_id}", *_options(args)],
            runs=str(args.runs),
            python=args.python or _PYTHON,
            request=request,
            grace_s=env.grace_s() if args.grace is None else args.grace,
            files=parcel.files_of(path, args.start),
        )

    @staticmethod
    def _show(start: Start) -> int:
        assert start.files is not None
        with parcel.packed(start.files) as path:
            total = parcel.mebibytes(path.stat().st_size)
        print(f"job: {start.command}")
        print(f"variables: {shlex.join(f'{k}={v}' for k, v in start.environment.items())}")
        print(f"files: {len(start.files)}, {total} as they are sent")
        for name in sorted(start.files):
            print(f"  {name}")
        return 0


def _options(args: argparse.Namespace) -> list[str]:
    """What is typed at the leader: all that a search has, but its id and its place."""
    typed = options.typed_again(args.arguments)
    typed["--engine"] = [args.engine]
    if "--start" in typed:
        typed["--start"] = [parcel.START]
    words = [f"{name}={v}" for name, values in typed.items() if name != "--id" for v in values]
    return [*words, *options.size_again(args)]


_READING: dict[str, Callable[[Reader, argparse.Namespace], int]] = {
    "status": Reader.status,
    "watch": lambda reader, args: reader.do("watch", args),
    "trials": lambda reader, args: reader.do("trials", args),
    "best": lambda reader, args: reader.do("best", args),
    "logs": Reader.logs,
    "export": Reader.export,
    "tensorboard": lambda reader, args: tensorboard(reader.inside, args),
}
_CHANGING: dict[str, Callable[[Changer, argparse.Namespace], int]] = {
    "stop": lambda changer, args: changer.stop(args),
    "resume": lambda changer, args: changer.go_on("resume", args),
    "retry": lambda changer, args: changer.go_on("retry", args),
    "scale": lambda changer, args: changer.scale(args),
}
