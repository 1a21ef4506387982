"""The verbs that change a run on a Ray cluster: stop, resume, retry, scale."""

from __future__ import annotations

import argparse
import io
import sys
import time

from cluster import options
from cluster.launchers.ray.jobs import REFUSED, Job, job_named, name
from cluster.launchers.ray.reading import Reader
from cluster.launchers.ray.submission import Start, await_begun, begin
from hpo import env
from hpo.errors import RunError, UsageError

_LOOK_S = 1.0


class Changer:
    """Changes the run that ``reader`` reads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._cluster, self._handle = reader.cluster, reader.handle

    def stop(self, args: argparse.Namespace) -> int:
        """Drains the run, or with ``--now`` stops it; returns once its job has ended."""
        job, said, status = self._reader.job, io.BytesIO(), REFUSED
        if job is None or job.status != "PENDING":
            now = ["--now"] if args.now else []
            status = self._reader.do("stop", args, *now, said=said)
        if job is not None and status == REFUSED and not self._latest(job).ended:
            # There is no run yet whose leader could be told.
            return self._cut_short(job)
        print(said.getvalue().decode(), end="", file=sys.stderr)
        while job is not None and status == 0 and not self._latest(job).ended:
            time.sleep(_LOOK_S)
        return status

    def go_on(self, verb: str, args: argparse.Namespace) -> int:
        """Starts the run again, by a job of its own; or says that it runs."""
        if verb == "retry" and not args.failed:
            raise UsageError("retry which trials? --failed runs those again that failed")
        job, inside = self._reader.job, self._reader.inside
        trials = getattr(args, "trials", None)
        if job is not None and not job.ended:
            if trials is not None or verb == "retry":
                raise RunError(f"run {self._handle.id} is running: stop it first")
            print(f"run {self._handle} is running")
            return 0
        words = [verb, self._handle.id, *(["--failed"] if verb == "retry" else [])]
        words += [f"--trials={trials}"] if trials is not None else []
        terms = options.typed_again(args.arguments, [options.limits, options.kept])
        words += [f"{name}={value}" for name, values in terms.items() for value in values]
        start = Start(
            run_id=self._handle.id,
            handle=str(self._handle),
            words=[*words, *options.size_again(args)],
            runs=inside.runs,
            python=inside.python,
            request=job.request if job else None,
            grace_s=env.grace_s() if args.grace is None else args.grace,
        )
        number = job.number + 1 if job else 1
        begin(self._cluster, start, number)
        await_begun(self._cluster, name(self._handle.id, number))
        print(f"run {self._handle}\nnext:\n  python launch.py watch {self._handle}")
        return 0

    def scale(self, args: argparse.Namespace) -> int:
        """Other numbers of workers from now on."""
        return self._reader.do("scale", args, f"--workers={args.workers}")

    def _cut_short(self, job: Job) -> int:
        """Ends a job whose search has not begun."""
        while not self._latest(job).ended:
            self._cluster.stop(job.name)
            time.sleep(_LOOK_S)
        print(f"run {self._handle} was stopped as it began: go on with the same `submit`")
        return 0

    def _latest(self, job: Job) -> Job:
        return job_named(self._cluster, job.name)
