"""Kubernetes as a place to search in."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import yaml

from cluster import options, tables
from cluster.launchers.base import Handle, Launcher, say_submitted
from cluster.launchers.kubernetes import asked
from cluster.launchers.kubernetes.changes import Changer
from cluster.launchers.kubernetes.checks import RIGHTS, check_before, examine
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.listing import list_runs
from cluster.launchers.kubernetes.reading import Reader
from cluster.launchers.kubernetes.render import Search, render
from cluster.launchers.kubernetes.spec import KubernetesSpec
from cluster.launchers.kubernetes.standing import There
from cluster.launchers.kubernetes.submission import submit
from cluster.launchers.kubernetes.templates import Manifest
from cluster.request import checked, read_here
from cluster.secret import secret_of
from hpo.errors import UsageError
from hpo.run import SearchRequest, new_id
from hpo.study import Study


class Kubernetes(Launcher):
    """Two Jobs, a chief's and its workers', and what they need."""

    scheme = "k8s"
    takes: ClassVar[tuple[str, ...]] = (
        *("kubeconfig", "context", "namespace", "image", "worker_image", "pull_policy", "cpus"),
        *("memory", "gpu_resource", "storage", "storage_class", "queue", "priority", "spot"),
        *("store", "monitoring"),
    )
    # The kind of object that a run is.
    owner: ClassVar[str] = "Job"
    rights: ClassVar[Sequence[tuple[str, str, str]]] = RIGHTS

    def check_engine(self, engine: str) -> None:
        """Raises UsageError for an engine whose workers are no pods of their own."""
        asked.check_engine(engine)

    def render(self, args: argparse.Namespace) -> int:
        """Prints the manifests as YAML, all but the Secret."""
        search, _ = self._asked(args)
        _print(self._render(search, KubernetesSpec.from_options(args)))
        return 0

    def submit(self, args: argparse.Namespace) -> int:
        """Makes the run, or attaches to it, and prints its handle and what is next."""
        spec = KubernetesSpec.from_options(args)
        # Before the study is read for seconds.
        search, request = self._asked(args)
        connection = None if args.dry_run else Connection(args)
        study, request = checked(args, request, read_here(args))
        search, request = _named(args, study, search, request)
        manifests = self._render(search, spec)
        if connection is None:
            _print(manifests)
            return 0

        def check() -> None:
            if not args.unchecked:
                check_before(connection, manifests, spec)

        there = There(connection, search.id, self.owner)
        made = submit(there, [*manifests, *self._secrets(search.id)], request, check)
        say_submitted(Handle(self.scheme, connection.namespace, search.id), made)
        return 0

    def list_runs(self, args: argparse.Namespace) -> int:
        """Prints the runs of the namespace."""
        return list_runs(Connection(args), self.scheme, self.owner, args.json)

    def doctor(self, args: argparse.Namespace) -> int:
        """Prints what the namespace has and lacks for a search."""
        spec = KubernetesSpec.from_options(args)
        manifests = self._render(Search(id="doctor", study="digits"), spec)
        found = examine(Connection(args), spec, manifests, self.rights)
        if args.json:
            tables.print_json({**dict(found.rows), "missing": found.missing})
        else:
            tables.print_pairs([*found.rows, *(("missing", text) for text in found.missing)])
        return 1 if found.missing else 0

    def of_run(self, verb: str, handle: Handle, args: argparse.Namespace) -> int:
        """Does ``verb`` with a run."""
        if verb not in _VERBS:
            raise UsageError(f"{verb} does not go with {handle}: {', '.join(_VERBS)} do")
        connection = Connection(args, handle.where)
        reader = Reader(connection, handle, self.owner)
        return _VERBS[verb](reader, self._changer(connection, handle), args)

    def fetch(self, handle: Handle, args: argparse.Namespace, folder: pathlib.Path) -> None:
        """Copies the run's ledger into ``folder``, from the pod that has it mounted."""
        Reader(Connection(args, handle.where), handle, self.owner).fetch(folder)

    def _asked(self, args: argparse.Namespace) -> tuple[Search, SearchRequest]:
        """The search that was typed; UsageError for what cannot be done there."""
        self.check_engine(args.engine)
        return asked.search_of(args)

    def _render(self, search: Search, spec: KubernetesSpec) -> list[Manifest]:
        return render(search, spec)

    def _secrets(self, run_id: str) -> list[Manifest]:
        return [secret_of(run_id)]

    def _changer(self, connection: Connection, handle: Handle) -> Changer:
        return Changer(connection, handle)


_VERBS: dict[str, Callable[[Reader, Changer, argparse.Namespace], int]] = {
    "status": lambda reader, _, args: reader.status(args),
    "watch": lambda reader, _, args: reader.watch(args),
    "logs": lambda reader, _, args: reader.logs(args),
    "trials": lambda reader, _, args: reader.do("trials", args),
    "best": lambda reader, _, args: reader.do("best", args),
    "export": lambda reader, _, args: reader.export(args),
    "tensorboard": lambda reader, _, args: reader.tensorboard(args),
    "stop": lambda _, changer, args: changer.stop(args.now),
    "resume": lambda _, changer, args: changer.resume(_terms(args), args.workers),
    "retry": lambda _, changer, args: changer.resume(_failed(args), args.workers),
    "scale": lambda _, changer, args: changer.scale(args.workers),
}


def _terms(args: argparse.Namespace) -> list[str]:
    """What the ledger is to note before a run goes on.

    UsageError for what a run elsewhere is given once and for all.
    """
    fixed = options.typed_again(args.arguments, [options.place, options.kept])
    fixed.pop("--workers", None)
    if fixed:
        raise UsageError(f"{', '.join(fixed)} stays as it was submitted: leave it out")
    typed = options.typed_again(args.arguments, [options.limits])
    if getattr(args, "trials", None) is not None:
        typed["--trials"] = [args.trials]
    return [f"{name}={value}" for name, values in typed.items() for value in values]


def _failed(args: argparse.Namespace) -> list[str]:
    if not args.failed:
        raise UsageError("retry which trials? --failed runs those again that failed")
    return ["--failed", *_terms(args)]


def _print(manifests: Sequence[Manifest]) -> None:
    print(yaml.safe_dump_all(manifests, sort_keys=False), end="")


def _named(
    args: argparse.Namespace, study: Study, search: Search, request: SearchRequest
) -> tuple[Search, SearchRequest]:
    """The search under its id, and the request as its containers will make it."""
    request = dataclasses.replace(request, study=search.study)
    if args.id is None and not args.dry_run:
        search = dataclasses.replace(search, id=new_id(study))
    return search, request
