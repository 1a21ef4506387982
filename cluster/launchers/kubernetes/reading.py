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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from cluster import tables
from cluster.launchers.base import Handle
from cluster.launchers.kubernetes import pods as pods_of
from cluster.launchers.kubernetes.applied import told_request
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.following import PodLog, Rest, follow_log
from cluster.launchers.kubernetes.forward import Forward
from cluster.launchers.kubernetes.inside import (
    RUNS,
    GoneError,
    Sink,
    execute,
    has_begun,
    once_begun,
)
from cluster.launchers.kubernetes.pods import (
    Standing,
    There,
    advice,
    part_of,
    serves_still,
)
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
_FOLLOWED_S = 3.0
# Exit statuses of a command that SIGKILL or SIGTERM ended, its container's or its own.
_KILLED = (137, 143)
# How long a chief that is being moved or restarted is waited for.
_BACK_S = 120.0


_Answer = TypeVar("_Answer")


class NotYetError(PlaceError):
    """No pod has the run's folder yet; one may come, in minutes or in hours."""


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
            about = "waits" if standing.begins else "chief"
            tables.print_pairs([*pairs, (about, self._why_none(standing))])
        else:
            # The viewer may have come only just now.
            self._do(self._pod(), ["status"])
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
            return self._do(pod, [verb], [*more, *flags], out, said)

        status = self._asked(ask)
        sys.stdout.buffer.write(out.getvalue())
        sys.stderr.buffer.write(said.getvalue())
        return status

    def watch(self, args: argparse.Namespace) -> int:
        """Follows the run to its end, from chief to chief."""
        while True:
            pod = self._await_pod()
            with contextlib.suppress(GoneError):
                status = self._do(pod, ["watch"], ["--json"] if args.json else [])
                # A chief that is moved leaves with its work undone, and another follows.
                if status != 75 or not self._is_followed():
                    return status
            time.sleep(_LOOK_S)

    def _is_followed(self) -> bool:
        """Waits until another chief serves the run; False where none will."""
        while self._there.look().goes_on:
            with contextlib.suppress(GoneError):
                out = io.BytesIO()
                self._do(self._await_pod(), ["status"], ["--json"], out, io.BytesIO())
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
            pod = self._await_pod()
            with contextlib.suppress(GoneError):
                rest.again()
                status = self._do(pod, ["logs"], [which, "-f", *flags], rest)
                # Of a process's log, to which the next chief adds, only the run's end is the end.
                if status or which.isdecimal() or not self._there.look().goes_on:
                    return status
            time.sleep(_LOOK_S)

    def export(self, args: argparse.Namespace) -> int:
        """Fetches the winner's model and how it came about."""
        return self._asked(lambda pod: self._export(pod, args))

    def _export(self, pod: Manifest, args: argparse.Namespace) -> int:
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
        words = ["python", "-m", "hpo.ledger.snapshot", f"{RUNS}/{self._handle.id}"]

        def copied(pod: Manifest) -> bytes:
            copy = io.BytesIO()
            if self._inside(pod, words, copy):
                raise PlaceError(f"cannot read the ledger of {self._handle}: see what is above")
            return copy.getvalue()

        snapshot.unpack(self._asked(copied), folder)

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
            pod = standing.serving()
            if pod and (not standing.begins or self._has_begun(pod)):
                return pod
            if self._is_idle(standing):
                return self._viewer(standing)
            what = "has not begun" if standing.begins else "has no chief"
            if pods_of.hopeless(standing):
                raise PlaceError(f"run {self._handle.id} {what}: {self._why_none(standing)}")
            if time.monotonic() >= deadline or standing.waits:
                raise NotYetError(f"run {self._handle.id} {what}: {self._why_none(standing)}")
            time.sleep(_LOOK_S)
            standing = None

    def _await_pod(self) -> Manifest:
        """The same, however long it takes; what is waited for is told on the side.

        PlaceError where waiting does not help.
        """
        told = ""
        while True:
            try:
                return self._pod()
            except NotYetError as error:
                if (words := str(error)) != told:
                    print(f"launch.py: {words}", file=sys.stderr, flush=True)
                told = words
            time.sleep(_FOLLOWED_S)

    def _viewer(self, standing: Standing) -> Manifest:
        """The viewer; PlaceError where the run failed before it had anything to view."""
        pod = ensure_viewer(self._there, standing)
        if standing.failure and not self._has_begun(pod):
            raise PlaceError(
                f"run {self._handle.id} failed before it began: {self._why_none(standing)}: mend "
                f"that, then python launch.py resume {self._handle}, or submit it under another id"
            )
        return pod

    def _has_begun(self, pod: Manifest) -> bool:
        """Whether the folder in the pod has the run, from now or from before."""
        try:
            return has_begun(self._connection, *_names(pod), self._handle.id)
        except GoneError:
            return False

    @staticmethod
    def _is_idle(standing: Standing) -> bool:
        """Whether no chief has the volume, or is about to."""
        if standing.goes_on or standing.waits:
            return False
        chief = [pod for pod in standing.pods if part_of(pod) == CHIEF]
        return all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in chief)

    def _why_none(self, standing: Standing) -> str:
        words = pods_of.obstacle(self._there, standing)
        return words or ("it has yet to begin" if standing.begins else "its pod has yet to start")

    def _do(
        self,
        pod: Manifest | None,
        verb: Sequence[str],
        more: Sequence[str] = (),
        out: Sink | None = None,
        said: Sink | None = None,
    ) -> int:
        assert pod is not None
        words = ["python", "launch.py", *verb, self._handle.id, *more, "--runs", RUNS]
        # Of one that has yet to begin the cluster knows the status.
        if part_of(pod) == CHIEF and verb[0] != "status":
            words = once_begun(self._handle.id, words)
        return self._inside(pod, words, out, said)

    def _inside(
        self,
        pod: Manifest,
        words: Sequence[str],
        out: Sink | None = None,
        said: Sink | None = None,
    ) -> int:
        """What :func:`execute` does; GoneError also where the container took the command along."""
        sys.stdout.flush()
        try:
            status = execute(self._connection, *_names(pod), words, out or sys.stdout.buffer, said)
        except GoneError:
            raise
        except PlaceError as error:
            if serves_still(self._connection, pod):
                raise
            raise GoneError(str(error)) from error
        if status in _KILLED and not serves_still(self._connection, pod):
            raise GoneError(f"pod {_names(pod)[0]} went meanwhile: ask again")
        return status

    def _asked(self, ask: Callable[[Manifest], _Answer]) -> _Answer:
        """What ``ask`` answers of the pod that has the folder, or of the next where that one goes.

        A run that has just ended takes its pods along; the viewer comes after them.
        """
        deadline = time.monotonic() + _BACK_S
        while True:
            pod = self._pod()
            try:
                return ask(pod)
            except GoneError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_S)

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
