"""The verbs that read a run on a cluster: they run in the pod that has its folder."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pathlib
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from cluster import tables
from cluster.launchers.base import Handle
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.folder import RunFolder
from cluster.launchers.kubernetes.following import PodLog, Rest, follow_log
from cluster.launchers.kubernetes.forward import Forward
from cluster.launchers.kubernetes.inside import RUNS, GoneError
from cluster.launchers.kubernetes.listing import outline
from cluster.launchers.kubernetes.obstacles import PodState, advice, states
from cluster.launchers.kubernetes.render import CHIEF
from cluster.launchers.kubernetes.standing import Standing, There
from cluster.launchers.kubernetes.submission import chief_request
from cluster.launchers.kubernetes.templates import Manifest
from hpo.errors import PlaceError
from hpo.export import sidecar_of
from hpo.ledger import snapshot
from hpo.status import RUNNING

_TENSORBOARD_PORT = 6006
_LOOK_S = 1.0
_FOLLOWED_S = 3.0


class Reader:
    """What can be read of one run, wherever its folder is mounted just now."""

    def __init__(self, connection: Connection, handle: Handle, owner: str) -> None:
        self._connection, self._handle = connection, handle
        self._there = There(connection, handle.id, owner)
        self._folder = RunFolder(self._there, handle)

    def status(self, args: argparse.Namespace) -> int:
        """Prints where the run stands, and its pods."""
        standing = self._there.look()
        rows = states(self._connection, standing)
        found = self._status_inside(standing)
        if args.json:
            found = found or self._from_outside(standing)
            tables.print_json({**found, "pods": [row.to_json() for row in rows]})
            return 0
        if found is None:
            seen = self._from_outside(standing)
            pairs = [("run", f"{seen['id']}  {seen['state']}"), ("study", f"{seen['study']}")]
            about = "waits" if standing.begins else "chief"
            tables.print_pairs([*pairs, (about, self._folder.why_none(standing))])
        else:
            # The viewer may have come only just now.
            self._folder.do(self._folder.pod(), ["status"])
        self._print_pods(rows)
        return 0

    def do(self, verb: str, args: argparse.Namespace, *more: str) -> int:
        """Lets ``verb`` run where the folder is; answers its exit status."""
        flags = [f"--{name}" for name in ("json", "debug") if getattr(args, name, False)]
        out, said = io.BytesIO(), io.BytesIO()

        def ask(pod: Manifest) -> int:
            # Half an answer, of a pod that went, is none.
            for stream in (out, said):
                stream.seek(0)
                stream.truncate()
            return self._folder.do(pod, [verb], [*more, *flags], out, said)

        status = self._folder.asked(ask)
        sys.stdout.buffer.write(out.getvalue())
        sys.stderr.buffer.write(said.getvalue())
        return status

    def watch(self, args: argparse.Namespace) -> int:
        """Follows the run to its end, from chief to chief."""
        while True:
            pod = self._folder.await_pod()
            with contextlib.suppress(GoneError):
                status = self._folder.do(pod, ["watch"], ["--json"] if args.json else [])
                # A chief that is moved leaves with its work undone, and another follows.
                if status != 75 or not self._is_followed():
                    return status
            time.sleep(_LOOK_S)

    def _is_followed(self) -> bool:
        """Waits until another chief serves the run; False where none will."""
        while self._there.look().goes_on:
            with contextlib.suppress(GoneError):
                out = io.BytesIO()
                self._folder.do(self._folder.await_pod(), ["status"], ["--json"], out, io.BytesIO())
                if json.loads(out.getvalue() or b"{}").get("state") == RUNNING:
                    return True
            time.sleep(_FOLLOWED_S)
        return False

    def logs(self, args: argparse.Namespace) -> int:
        """Prints the log of a pod, or of a trial; with ``-f`` from pod to pod."""
        which = args.which or CHIEF
        pod = self._there.look().latest(which)
        # What a pod on KubeRay prints is Ray's; the search's own logs lie in its folder.
        if pod is None or self._there.owner != "Job":
            return self._follow_inside(which, args) if args.follow else self.do("logs", args, which)
        if args.follow:
            follow_log(self._there, which, args.json)
        else:
            PodLog(self._connection, pod, which, args.json).show()
        return 0

    def _follow_inside(self, which: str, args: argparse.Namespace) -> int:
        """Follows a log in the run's folder, where it goes on from chief to chief."""
        rest = Rest(sys.stdout.buffer)
        flags = ["--json"] if args.json else []
        while True:
            pod = self._folder.await_pod()
            with contextlib.suppress(GoneError):
                rest.again()
                status = self._folder.do(pod, ["logs"], [which, "-f", *flags], rest)
                # Of a process's log, to which the next chief adds, only the run's end is the end.
                if status or which.isdecimal() or not self._there.look().goes_on:
                    return status
            time.sleep(_LOOK_S)

    def export(self, args: argparse.Namespace) -> int:
        """Fetches the winner's model and how it came about."""
        return self._folder.asked(lambda pod: self._export(pod, args))

    def _export(self, pod: Manifest, args: argparse.Namespace) -> int:
        there = f"/tmp/{secrets.token_hex(8)}.keras"
        said = io.BytesIO()
        status = self._folder.do(pod, ["export"], ["--out", there], said)
        if status:
            return status
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for source, target in ((f"{there}.json", sidecar_of(args.out)), (there, args.out)):
            draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            try:
                with draft.open("wb") as file:
                    if self._folder.inside(pod, ["cat", source], file):
                        name = pod["metadata"]["name"]
                        raise PlaceError(f"cannot fetch {source} from {name}: try again")
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)
        self._folder.inside(pod, ["rm", "-f", there, f"{there}.json"], io.BytesIO())
        print(said.getvalue().decode().replace(there, str(args.out)), end="")
        return 0

    def fetch(self, folder: pathlib.Path) -> None:
        """Copies the run's ledger, as it is now, into ``folder``."""
        words = ["python", "-m", "hpo.ledger.snapshot", f"{RUNS}/{self._handle.id}"]

        def copied(pod: Manifest) -> bytes:
            copy = io.BytesIO()
            if self._folder.inside(pod, words, copy):
                raise PlaceError(f"cannot read the ledger of {self._handle}: see what is above")
            return copy.getvalue()

        snapshot.unpack(self._folder.asked(copied), folder)

    def tensorboard(self, args: argparse.Namespace) -> int:
        """Leads a port here to the TensorBoard beside the run, until Ctrl-C."""
        # Makes a viewer where the run goes on no more.
        self._folder.pod()
        beside = self._folder.serving
        forward = Forward(self._connection, beside, _TENSORBOARD_PORT, args.host, args.port)
        print(f"http://{args.host}:{forward.port}/#hparams\nCtrl-C ends it", flush=True)
        try:
            forward.serve()
        except KeyboardInterrupt:
            return 0
        finally:
            forward.close()
        return 0

    def _status_inside(self, standing: Standing) -> dict[str, Any] | None:
        """The status as the run's folder has it; None where no pod can be asked just now."""
        try:
            pod = self._folder.pod(standing, patience_s=0)
            out, said = io.BytesIO(), io.BytesIO()
            status = self._folder.do(pod, ["status"], ["--json"], out, said)
        except PlaceError:
            return None
        found: dict[str, Any] | None = json.loads(out.getvalue()) if status == 0 else None
        return found

    def _from_outside(self, standing: Standing) -> dict[str, Any]:
        return outline(self._handle.id, standing.chief, chief_request(self._there))

    def _print_pods(self, rows: Sequence[PodState]) -> None:
        if not rows:
            return
        print()
        headers = ("pod", "node", "phase", "restarts", "why", "what befell it last")
        cells = []
        for row in rows:
            hint = advice(row.reason) or advice(row.event)
            why = ": ".join(filter(None, (row.reason, hint)))
            cells.append((row.name, row.node, row.phase, str(row.restarts), why, row.event))
        tables.print_table(headers, cells)
