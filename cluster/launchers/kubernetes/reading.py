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
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from cluster import tables
from cluster.launchers.base import Handle
from cluster.launchers.kubernetes import pods as pods_of
from cluster.launchers.kubernetes.applied import told_request
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.forward import Forward
from cluster.launchers.kubernetes.inside import (
    RUNS,
    NotRunError,
    execute,
    has_begun,
    once_begun,
)
from cluster.launchers.kubernetes.pods import Standing, There, advice, part_of, reason_of
from cluster.launchers.kubernetes.render import CHIEF, COMPONENT, INSTANCE, NAME
from cluster.launchers.kubernetes.submission import chief_request, request_of
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.kubernetes.viewer import ensure_viewer
from cluster.launchers.outline import SHORT
from cluster.launchers.outline import outline as outline_of
from hpo.errors import PlaceError
from hpo.export import sidecar_of
from hpo.ledger import snapshot
from hpo.run import SearchRequest
from hpo.status import DONE, FAILED, RUNNING, STOPPED

_TENSORBOARD_PORT = 6006
_LOOK_S = 1.0
# How long a chief that is being moved or restarted is waited for.
_BACK_S = 120.0


class Reader:
    """What can be read of one run, wherever its folder is mounted just now."""

    def __init__(self, connection: Connection, handle: Handle, owner: str) -> None:
        self._connection, self._handle = connection, handle
        self._there = There(connection, handle.id, owner)

    def status(self, args: argparse.Namespace) -> int:
        """Prints where the run stands, and its pods."""
        standing = self._there.look()
        rows = pods_of.states(self._connection, standing)
        found = self._status_inside(standing)
        if args.json:
            found = found or self._from_outside(standing)
            tables.print_json({**found, "pods": [row.to_json() for row in rows]})
            return 0
        if found is None:
            seen = self._from_outside(standing)
            pairs = [("run", f"{seen['id']}  {seen['state']}"), ("study", f"{seen['study']}")]
            tables.print_pairs([*pairs, ("chief", self._why_none(standing))])
        else:
            # The viewer may have come only just now.
            self._do(self._pod(), ["status"])
        self._print_pods(rows)
        return 0

    def do(self, verb: str, args: argparse.Namespace, *more: str) -> int:
        """Lets ``verb`` run where the folder is; answers its exit status."""
        flags = [f"--{name}" for name in ("json", "debug") if getattr(args, name, False)]
        deadline = time.monotonic() + _BACK_S
        while True:
            pod = self._pod()
            try:
                return self._do(pod, [verb], [*more, *flags])
            except NotRunError:
                # A run that has just ended takes its pods along; the viewer comes after them.
                if time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_S)

    def watch(self, args: argparse.Namespace) -> int:
        """Follows the run to its end, from chief to chief."""
        while True:
            pod = self._pod()
            with contextlib.suppress(PlaceError):
                status = self._do(pod, ["watch"], ["--json"] if args.json else [])
                standing = self._there.look()
                # A chief that is moved leaves with its work undone, and another follows.
                if status != 75 or standing.suspended or standing.ended:
                    return status
            time.sleep(_LOOK_S)

    def logs(self, args: argparse.Namespace) -> int:
        """Prints the log of a pod, or of a trial."""
        which = args.which or CHIEF
        standing = self._there.look()
        pod = standing.latest(which)
        # What a pod on KubeRay prints is Ray's; the search's own logs lie in its folder.
        if pod is None or self._there.owner != "Job":
            more = [which, "-f"] if args.follow else [which]
            return self.do("logs", args, *more)
        try:
            return self._copy_log(pod, args)
        except PlaceError:
            # The cluster says that it waits; a person wants to know why.
            raise PlaceError(f"{which} has no log yet: {reason_of(pod) or 'it starts'}") from None

    def export(self, args: argparse.Namespace) -> int:
        """Fetches the winner's model and how it came about."""
        pod = self._pod()
        there = f"/tmp/{secrets.token_hex(8)}.keras"
        said = io.BytesIO()
        status = self._do(pod, ["export"], ["--out", there], said)
        if status:
            return status
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for source, target in ((f"{there}.json", sidecar_of(args.out)), (there, args.out)):
            draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            try:
                with draft.open("wb") as file:
                    if execute(self._connection, *_names(pod), ["cat", source], file):
                        raise PlaceError(f"cannot fetch {source} from {_names(pod)[0]}: try again")
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)
        execute(self._connection, *_names(pod), ["rm", "-f", there, f"{there}.json"], io.BytesIO())
        print(said.getvalue().decode().replace(there, str(args.out)), end="")
        return 0

    def fetch(self, folder: pathlib.Path) -> None:
        """Copies the run's ledger, as it is now, into ``folder``."""
        pod, copy = self._pod(), io.BytesIO()
        words = ["python", "-m", "hpo.ledger.snapshot", f"{RUNS}/{self._handle.id}"]
        if execute(self._connection, *_names(pod), words, copy):
            raise PlaceError(f"cannot read the ledger of {self._handle}: see what was said above")
        snapshot.unpack(copy.getvalue(), folder)

    def tensorboard(self, args: argparse.Namespace) -> int:
        """Leads a port here to the TensorBoard beside the run, until Ctrl-C."""
        pod = self._pod()
        name = pod["metadata"]["name"]
        forward = Forward(self._connection, name, _TENSORBOARD_PORT, args.host, args.port)
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
            pod = self._pod(standing, patience_s=0)
            out, said = io.BytesIO(), io.BytesIO()
            status = self._do(pod, ["status"], ["--json"], out, said)
        except PlaceError:
            return None
        found: dict[str, Any] | None = json.loads(out.getvalue()) if status == 0 else None
        return found

    def _from_outside(self, standing: Standing) -> dict[str, Any]:
        request = chief_request(self._there)
        return outline(self._handle.id, standing.chief, request)

    def _pod(self, standing: Standing | None = None, patience_s: float = _BACK_S) -> Manifest:
        """The pod that has the run's folder; PlaceError where there will be none for now."""
        deadline = time.monotonic() + patience_s
        while True:
            standing = standing or self._there.look()
            if pod := standing.serving():
                return pod
            if self._is_idle(standing):
                return self._viewer(standing)
            if time.monotonic() >= deadline or pods_of.hopeless(standing):
                raise PlaceError(f"run {self._handle.id} has no chief: {self._why_none(standing)}")
            time.sleep(_LOOK_S)
            standing = None

    def _viewer(self, standing: Standing) -> Manifest:
        """The viewer; PlaceError where the run failed before it had anything to view."""
        pod = ensure_viewer(self._there, standing)
        if standing.failure and not has_begun(self._connection, *_names(pod), self._handle.id):
            raise PlaceError(
                f"run {self._handle.id} failed before it began: {self._why_none(standing)}: mend "
                f"that, then python launch.py resume {self._handle}, or submit it under another id"
            )
        return pod

    @staticmethod
    def _is_idle(standing: Standing) -> bool:
        """Whether no chief has the volume, or is about to."""
        if standing.chief and not standing.ended and not standing.suspended:
            return False
        chief = [pod for pod in standing.pods if part_of(pod) == CHIEF]
        return all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in chief)

    def _why_none(self, standing: Standing) -> str:
        pod = standing.latest(CHIEF)
        words = reason_of(pod) if pod else ""
        words = words or standing.failure or pods_of.refused_pods(self._there)
        if not words:
            return "its pod has yet to start"
        return ": ".join(filter(None, (words, advice(words))))

    def _do(
        self,
        pod: Manifest | None,
        verb: Sequence[str],
        more: Sequence[str] = (),
        out: BinaryIO | None = None,
        said: BinaryIO | None = None,
    ) -> int:
        assert pod is not None
        words = ["python", "launch.py", *verb, self._handle.id, *more, "--runs", RUNS]
        # Of one that has yet to begin the cluster knows the status.
        if part_of(pod) == CHIEF and verb[0] != "status":
            words = once_begun(self._handle.id, words)
        sys.stdout.flush()
        return execute(self._connection, *_names(pod), words, out or sys.stdout.buffer, said)

    def _copy_log(self, pod: Manifest, args: argparse.Namespace) -> int:
        name, container = _names(pod)
        with self._connection.plainly():
            answer = self._connection.core().read_namespaced_pod_log(
                name,
                self._connection.namespace,
                container=container,
                follow=args.follow,
                _preload_content=False,
            )
            whole = io.TextIOWrapper(answer, errors="replace")
            for line in whole:
                if args.json:
                    row = {"source": args.which or CHIEF, "line": line.rstrip("\n")}
                    tables.print_json(row)
                else:
                    print(line, end="", flush=True)
        return 0

    def _print_pods(self, rows: Sequence[pods_of.PodState]) -> None:
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


def _names(pod: Manifest) -> tuple[str, str]:
    return pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]


def outline(run_id: str, chief: Manifest | None, request: SearchRequest | None) -> dict[str, Any]:
    """A status from what the cluster alone knows: no ledger was read, so nothing is counted."""
    standing = Standing(chief, None, ())
    ended = {"Complete": DONE, "Failed": FAILED}.get(standing.ended)
    state = ended or (STOPPED if chief is None or standing.suspended else RUNNING)
    return outline_of(run_id, state, request)


def list_runs(connection: Connection, scheme: str, owner: str, as_json: bool) -> int:
    """Prints the runs of a namespace by what their chiefs are; nothing of them is started."""
    chiefs = [
        made
        for made in connection.every(owner, f"{NAME}=tunefleet")
        if made["metadata"]["labels"].get(COMPONENT) == CHIEF
    ]
    chiefs.sort(key=lambda made: made["metadata"]["creationTimestamp"])
    found = [_short(made) for made in chiefs]
    if as_json:
        tables.print_json(found)
    elif found:
        rows = [(f"{scheme}://{connection.namespace}/{row['id']}", *_cells(row)) for row in found]
        tables.print_table(("run", "state", "study", "engine", "sampler"), rows)
    else:
        connection.namespace_labels()
        print(f"no runs in namespace {connection.namespace}")
    return 0


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (str(row[name] or "") for name in ("state", "study", "engine", "sampler"))


def _short(made: Manifest) -> dict[str, Any]:
    run_id = made["metadata"]["labels"][INSTANCE]
    whole = outline(run_id, made, request_of(made) or told_request(made))
    return {name: whole[name] for name in SHORT}
