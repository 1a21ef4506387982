"""The verbs that search: `run` and `resume`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

from cluster.devices import Devices, gpus_here, most_workers, share
from cluster.entrypoint import log_to_file_too, set_up_logging
from cluster.history import results_of
from cluster.launchers import local
from cluster.plan import JobPlan, plan, waiting_worker
from cluster.request import checked, limits_of, request_of
from cluster.spec import DEFAULT_WORKERS, ClusterSpec
from cluster.terms import queue_failed, set_meta, with_limits, with_settings, with_trials
from hpo import address, env, precision, settings, tls, token_file
from hpo.child import understood
from hpo.crew import Crew
from hpo.engines.base import Engine, load_engine
from hpo.errors import RunError, TuneFleetError, UsageError
from hpo.lock import Lock
from hpo.registry import SAMPLERS
from hpo.run import (
    DEFAULT_CHECKPOINT_GB,
    Run,
    SearchRequest,
    check_id,
    create_run,
    list_runs,
    new_id,
    open_run,
)
from hpo.schedule import EVERY_TWO_MINUTES
from hpo.status import is_live, status_of
from hpo.study import Study, find_study

if TYPE_CHECKING:
    from hpo.probe import Reading

DEFAULT_LEASE_S = 30.0
# How long a worker by hand looks for its chief's run: reading a study takes that a while.
_CHIEF_S = 60.0


def run(args: argparse.Namespace) -> int:
    """Searches here; or, with KerasTuner's variables set, is one process of a search."""
    role = env.role()
    if role:
        set_up_logging()
    path = find_study(args.study)
    engine = load_engine(args.engine)
    if role and not role.is_chief:
        engine.check_place(role.host, args.insecure, by_hand=True)
        return _work(args, role, path)
    request = request_of(args, path)
    # What is wrong with the place is said before a study is read for seconds.
    _check_place(engine, role.host if role else args.host, args.insecure, by_hand=bool(role))
    _check_storage(engine, settings.together(args.set, decides_results=False))
    found = _existing(args, request)
    spec = ClusterSpec.from_options(args, workers=found.workers if found else DEFAULT_WORKERS)
    if not role:
        _check_precision(request.settings, spec)
    if found:
        if not is_live(found):
            _check_kept(found, args)
        if not role and not args.set and status_of(found)["state"] == "DONE":
            # Nothing is left to do, so nothing is started for it.
            print(f"run {found.id}", flush=True)
            _sum_up(found, spec, 0, args.debug)
            return 0
        found = with_settings(found, args.set)
        return _lead_or_search(found, role, spec, args.debug, local.Reserve([]))
    devices = _devices(spec, request.engine)
    # More than one a core would only slow the reading of the study down.
    early = devices[: len(_cpus())]
    waiting = [waiting_worker(request.engine, path, spec, own) for own in early]
    with local.Reserve([] if role else waiting) as reserve:
        try:
            found = _create(args, request, path, spec, reserve)
        except RunError:
            found = _existing(args, request)
            if found is None:
                raise
        try:
            return _lead_or_search(found, role, spec, args.debug, reserve)
        except TuneFleetError:
            _forget_if_never_begun(found)
            raise


def resume(args: argparse.Namespace) -> int:
    """Goes on with a run that was interrupted, or with more trials than it had."""
    found = open_run(args.runs, args.run)
    spec = _check_going_on(found, args)
    if args.trials is not None:
        found = with_trials(found, args.trials)
    return _go_on(found, args, spec)


def retry(args: argparse.Namespace) -> int:
    """Goes on with a run, its failed trials first."""
    found = open_run(args.runs, args.run)
    if not args.failed:
        raise UsageError("retry which trials? --failed runs those again that failed")
    spec = _check_going_on(found, args)
    queue_failed(found)
    return _go_on(found, args, spec)


def _go_on(found: Run, args: argparse.Namespace, spec: ClusterSpec) -> int:
    """Searches on, under the terms that were typed."""
    found = with_settings(with_limits(found, limits_of(args)), args.set)
    return _search(found, spec, args.debug, local.Reserve([]))


def _check_going_on(found: Run, args: argparse.Namespace) -> ClusterSpec:
    """How a run is to go on. UsageError, before anything is noted, where it cannot here."""
    spec = ClusterSpec.from_options(args, workers=found.workers)
    _check_place(load_engine(found.request.engine), args.host, args.insecure)
    _check_kept(found, args)
    _check_precision(found.settings, spec)
    _devices(spec, found.request.engine)
    return spec


def _check_kept(found: Run, args: argparse.Namespace) -> None:
    """Raises UsageError where what a run had when it began has gone since."""
    SAMPLERS.load(found.request.sampler).check_installed()
    chosen = found.settings | settings.together(args.set, decides_results=False)
    try:
        _check_storage(load_engine(found.request.engine), chosen)
    except UsageError as error:
        another = f"--set {settings.OPTUNA_STORAGE}=URL"
        raise UsageError(f"{error}; or give another: {another}") from error


def _check_storage(engine: Engine, typed: settings.Settings) -> None:
    """Raises UsageError where the Optuna storage that was named is out of reach."""
    if url := typed.get(settings.OPTUNA_STORAGE):
        engine.check_storage(url)


def _check_place(engine: Engine, host: str, insecure: bool, by_hand: bool = False) -> None:
    """Raises UsageError where a chief could not, or should not, serve at ``host``."""
    engine.check_installed()
    engine.check_place(host, insecure, by_hand)
    address.check(host, insecure)
    if not address.is_loopback(host):
        tls.given_identity()


def _check_precision(chosen: settings.Settings, spec: ClusterSpec) -> None:
    """Raises UsageError where the workers here would only compute in it by software."""
    has_gpu = bool(gpus_here()) and spec.gpus_per_worker != 0
    precision.check_here(chosen.get("precision"), has_gpu)


def _lead_or_search(
    found: Run, role: env.Role | None, spec: ClusterSpec, debug: bool, reserve: local.Reserve
) -> int:
    if role is None:
        return _search(found, spec, debug, reserve)
    print(f"run {found.id}", flush=True)
    # Where it was started may be gone before somebody asks.
    log_to_file_too(found.logs / f"{env.CHIEF_ID}.log")
    os.environ.update({**env.insecure(spec.insecure), **env.grace(spec.grace_s)})
    os.environ.update(env.gpus_each(spec.gpus_per_worker))
    if given := os.environ.get(env.TOKEN_FILE):
        _open_by(found, pathlib.Path(given))
    # Whom an earlier `run` dismissed may be a worker by hand now.
    set_meta(found, Crew(spec.workers).to_meta())
    found = Run(found.folder)
    return load_engine(found.request.engine).lead(found, role)


def _open_by(found: Run, given: pathlib.Path) -> None:
    """The run is opened by the token in the file ``given``, which workers elsewhere may have."""
    secret = token_file.read(given)
    if secret.token != found.token:
        token_file.write(found.token_file, secret)


def _existing(args: argparse.Namespace, request: SearchRequest) -> Run | None:
    """The run of the id that was asked for; raises RunError if it has another request."""
    if args.id is None:
        return None
    folder = args.runs / check_id(args.id)
    if not folder.exists():
        return None
    found = open_run(args.runs, args.id)
    differing = request.differences(found.request)
    if differing:
        raise RunError(
            f"run {args.id!r} was made by another request (other {', '.join(differing)}): "
            "give another --id, or the same request"
        )
    return found


def _create(
    args: argparse.Namespace,
    request: SearchRequest,
    path: pathlib.Path,
    spec: ClusterSpec,
    reserve: local.Reserve,
) -> Run:
    reading = _read(path, spec, args.debug, reserve)
    for warning in reading.warnings:
        print(f"launch.py: {warning}", file=sys.stderr)
    study: Study = reading.study
    study, request = checked(args, request, study)
    history = results_of(args.runs, request.from_run, study) if request.from_run else ()
    room = args.checkpoint_gb
    meta = {
        "wanted": SAMPLERS.load(request.sampler).wanted(study, request.trials),
        "lease_s": args.lease or DEFAULT_LEASE_S,
        "limits": limits_of(args),
        "schedule": dataclasses.asdict(args.checkpoint_every or EVERY_TWO_MINUTES),
        "checkpoint_gb": DEFAULT_CHECKPOINT_GB if room is None else room,
        "workers": spec.workers,
        "settings": settings.together(args.set, decides_results=False),
    }
    run_id = args.id or new_id(study)
    return create_run(args.runs, run_id, request, study, path, meta, history)


def _read(path: pathlib.Path, spec: ClusterSpec, debug: bool, reserve: local.Reserve) -> Reading:
    """The study at ``path``, read by a waiting worker where there is one that can."""
    from hpo.probe import Reading, read_study

    # What the study prints is shown by a process of its own alone.
    if text := "" if debug else reserve.read():
        return Reading.from_json(understood(text))
    environ = {**os.environ, **env.data_variables(spec.data_dir)}
    return read_study(path, environ, debug)


def _forget_if_never_begun(found: Run) -> None:
    """A run whose chief was refused before it served leaves nothing behind."""
    reader = found.reader()
    try:
        begun = bool(reader.sessions())
    finally:
        reader.close()
    if not begun:
        shutil.rmtree(found.folder, ignore_errors=True)


def _search(found: Run, spec: ClusterSpec, debug: bool, reserve: local.Reserve) -> int:
    """Leads a run to its end from here, or follows it where another process already does."""
    from cluster.verbs.reading import follow

    print(f"run {found.id}", flush=True)
    lock = Lock(found.supervisor_lock)
    try:
        lock.acquire(patience_s=0.2)
    except RunError:
        return follow(found)
    try:
        if found.chief_lives:
            # One that was started by hand.
            return follow(found)
        status = _supervise(found, spec, reserve)
    finally:
        lock.release()
    # Only now: as long as the lock is held the run counts as going on.
    _sum_up(found, spec, status, debug)
    return status


def _supervise(found: Run, spec: ClusterSpec, reserve: local.Reserve) -> int:
    """Leads a run to its end and shows how it goes; answers the chief's exit status."""
    from cluster.invitation import Invitation
    from cluster.progress import Progress

    def job(workers: int) -> JobPlan:
        own = dataclasses.replace(spec, workers=workers)
        engine = found.request.engine
        return plan(found, own, load_engine(engine).roles(workers), _devices(own, engine))

    first = job(spec.workers)
    most = most_workers(spec.gpus_per_worker, gpus_here()) if first.devices else None
    _note_place(found, spec, most)
    progress = Progress(found)
    show = progress.update
    if first.devices and not address.is_loopback(spec.host):
        show = Invitation(found, show).show
    try:
        status = local.supervise(first, job, reserve, show)
        progress.update()
    finally:
        progress.close()
    return status


def _note_place(found: Run, spec: ClusterSpec, most: int | None) -> None:
    """Writes down what `scale` and the chief must know of how the run is led this time."""
    crew = Crew(spec.workers)
    if (crew, most) != (found.crew, found.most_workers):
        set_meta(found, {**crew.to_meta(), "most_workers": most})


def _sum_up(found: Run, spec: ClusterSpec, status: int, debug: bool) -> None:
    """Evaluates the winner and prints what came out."""
    from cluster.progress import summary
    from hpo.winner import remember_test

    environ = {**os.environ, **env.data_variables(spec.data_dir)}
    summary(found, remember_test(found, environ, debug) if status == 0 else None)


def _work(args: argparse.Namespace, role: env.Role, path: pathlib.Path) -> int:
    """Is a worker of a chief that was started by hand."""
    grace_s = env.grace_s() if args.grace is None else args.grace
    os.environ.update({**env.data_variables(args.data_dir), **env.grace(grace_s)})
    return load_engine(args.engine).work(role, _token_file(args, role), path)


def _token_file(args: argparse.Namespace, role: env.Role) -> pathlib.Path:
    """The token of the run that a worker joins.

    Named by the environment; or of the run here, ``--id`` if that is given, whose chief
    serves at the address given, once it does.
    """
    if named := os.environ.get(env.TOKEN_FILE):
        return pathlib.Path(named)
    from cluster.verbs.control import chief_address

    deadline = time.monotonic() + _CHIEF_S
    while time.monotonic() < deadline:
        # Processes on several terminals start in any order.
        for candidate in list_runs(args.runs)[0]:
            is_it = args.id in (None, candidate.id)
            if is_it and (chief_address(candidate) or "").endswith(f":{role.port}"):
                return candidate.token_file
        time.sleep(0.5)
    raise UsageError(
        f"no run in {args.runs} is served at {role.host}:{role.port}: start the chief first, "
        f"or set {env.TOKEN_FILE} to its token file"
    )


def _devices(spec: ClusterSpec, engine: str) -> list[Devices]:
    """The share of this host of each worker that is started here: none where the engine does."""
    if not load_engine(engine).roles(1)[1:]:
        return []
    return share(spec.workers, spec.gpus_per_worker, _cpus(), gpus_here())


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))
