"""The verbs that read a run on a Ray cluster: they run on the head, which has its folder."""

from __future__ import annotations

import argparse
import collections
import io
import json
import secrets
import sys
from typing import Any, BinaryIO

from cluster import tables
from cluster.launchers.base import Handle
from cluster.launchers.outline import SHORT, outline
from cluster.launchers.ray import frames
from cluster.launchers.ray.connection import Cluster
from cluster.launchers.ray.inside import Inside, inside
from cluster.launchers.ray.jobs import Job, jobs_of
from hpo.export import sidecar_of


class Reader:
    """What can be read of one run."""

    def __init__(self, cluster: Cluster, handle: Handle, runs: str) -> None:
        self.cluster, self.handle = cluster, handle
        found = jobs_of(cluster, handle.id)
        self.job: Job | None = found[-1] if found else None
        self.inside: Inside = inside(cluster, str(handle), handle.id, self.job, runs)

    def do(
        self, verb: str, args: argparse.Namespace, *more: str, said: BinaryIO | None = None
    ) -> int:
        """Lets ``verb`` run on the head; answers its exit status."""
        flags = [f"--{name}" for name in ("json", "debug") if getattr(args, name, False)]
        return self.inside.do([verb, self.handle.id, *more, *flags], said=said)

    def status(self, args: argparse.Namespace) -> int:
        """Prints where the run stands, and its job."""
        out, said = io.BytesIO(), io.BytesIO()
        words = ["status", self.handle.id, *(["--json"] if args.json else [])]
        status = self.inside.do(words, out, said)
        if status and self.job is None:
            print(said.getvalue().decode(), end="", file=sys.stderr)
            return status
        job = self.job and self.job.to_json()
        if args.json:
            found = json.loads(out.getvalue()) if status == 0 else self._from_outside()
            tables.print_json({**found, "job": job})
            return 0
        if status == 0:
            print(out.getvalue().decode(), end="")
        else:
            seen = self._from_outside()
            pairs = [("run", f"{seen['id']}  {seen['state']}"), ("study", f"{seen['study']}")]
            tables.print_pairs(pairs)
        if self.job:
            ended = f": {self.job.words}" if self.job.words else ""
            tables.print_pairs([("job", f"{self.job.name} {self.job.status}{ended}")])
        return 0

    def logs(self, args: argparse.Namespace) -> int:
        """Prints the log of the chief, of a trial, or of the job where no search has begun."""
        more = [args.which] if args.which else []
        said = io.BytesIO()
        flags = [*(["-f"] if args.follow else []), *(["--json"] if args.json else [])]
        status = self.inside.do(["logs", self.handle.id, *more, *flags], said=said)
        if status == 0 or args.which or self.job is None:
            print(said.getvalue().decode(), end="", file=sys.stderr)
            return status
        for line in frames.lines(self.cluster.log(self.job.name)):
            if line is None and not args.follow:
                return 0
            if line and not frames.parse(line):
                print(line, flush=True)
        return 0

    def export(self, args: argparse.Namespace) -> int:
        """Fetches the winner's model and how it came about."""
        args.out.parent.mkdir(parents=True, exist_ok=True)
        words = [f"--data-dir={args.data_dir}"] if args.data_dir else []
        said: dict[str, bytearray] = collections.defaultdict(bytearray)
        files: dict[str, bytearray] = {}
        with self.inside.telling("export", self.handle.id, *words) as told:
            for frame in filter(None, told):
                if frame.kind == frames.FILE:
                    content = files[frame.data.decode()] = bytearray()
                elif frame.kind == frames.PART:
                    content += frame.data
                else:
                    said[frame.kind] += frame.data
        status = int(said[frames.STATUS])
        print(said[frames.SAID].decode(), end="", file=sys.stderr)
        for name, target in (("best.keras.json", sidecar_of(args.out)), ("best.keras", args.out)):
            if status == 0:
                draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
                draft.write_bytes(files[name])
                draft.rename(target)
        print(said[frames.OUT].decode().replace("/best.keras", str(args.out)), end="")
        return status

    def _from_outside(self) -> dict[str, Any]:
        assert self.job
        return outline(self.handle.id, self.job.state, self.job.request)


def list_runs(cluster: Cluster, as_json: bool) -> int:
    """Prints the runs that the head remembers, by their jobs; nothing of them is started."""
    latest = {job.run_id: job for job in jobs_of(cluster) if not job.refused}
    found = [outline(job.run_id, job.state, job.request) for job in latest.values()]
    if as_json:
        tables.print_json([{name: row[name] for name in SHORT} for row in found])
    elif found:
        shown = ("state", "study", "engine", "sampler")
        rows = [
            (f"raycluster://{cluster.where}/{row['id']}", *(str(row[name] or "") for name in shown))
            for row in found
        ]
        tables.print_table(("run", *shown), rows)
    else:
        print(f"the head at {cluster.where} remembers no runs")
    return 0
