"""The Ray cluster that a search runs in: one that exists, or one of its own on this machine.

Imported only by the thread that drives Ray, since it brings Ray in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

from hpo import env
from hpo.child import ROOT
from hpo.engines.ray_tune.modules import own_modules
from hpo.engines.ray_tune.nodes import joinable, nodes
from hpo.engines.ray_tune.reach import cluster_address
from hpo.engines.ray_tune.room import Node, Share, fitting, share
from hpo.errors import PlaceError, UsageError
from hpo.run import Run

log = logging.getLogger("tunefleet.ray")

# Ray reads these when it is imported or started. Its own reports, files and pictures of a search
# would cost more with each trial, and say what the ledger and TensorBoard say already.
_OF_RAY = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # As many processes as there are workers, which none of these would ever use.
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # Each free worker has a trial at once; who is free, we know.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Trials run as with the other engines: Ray would let everything else go before them.
    "RAY_worker_niceness": "0",
}
# Of a cluster of our own: a worker takes one of these, so that `scale` may start more than
# there were processors.
_WORKER, _ANY_NUMBER = "tunefleet_worker", 100_000
_OBJECTS_BYTES = 256 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Place:
    """A connection to Ray: each worker's share, what its actor asks Ray for, and a folder."""

    share: Share
    resources: dict[str, float]
    folder: pathlib.Path
    is_ours: bool

    def room(self) -> int | None:
        """How many workers there is room for now: hosts come and go. None: for any number."""
        gpus = self.share.gpus
        if not self.is_ours:
            return fitting(_reachable(), self.share.cpus, gpus)
        if not gpus:
            return None
        # More workers than processors share these.
        return fitting([Node(_ANY_NUMBER, node.gpus) for node in nodes()], 1, gpus)


@contextlib.contextmanager
def cluster(run: Run, workers: int) -> Iterator[Place]:
    """A connection to Ray.

    Raises UsageError where the cluster has no room for ``workers``, PlaceError where it
    cannot be reached or started.
    """
    os.environ.update(_OF_RAY)
    import ray

    # It warns of attempts that ended, and of the files that it was told not to write.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    folder, each = _folder(run), env.gpus_per_worker()
    # What a leader that was killed has left.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if address := cluster_address():
            _connect(address, run.study_path())
            found = share(_reachable(), workers, each, f"the Ray cluster at {address}")
            resources = {"CPU": float(found.cpus), "GPU": found.gpus}
            yield Place(found, resources, folder, is_ours=False)
        else:
            _start(folder, workers)
            cores, gpus = len(os.sched_getaffinity(0)), sum(node.gpus for node in nodes())
            # More workers than processors share these.
            found = share([Node(max(cores, workers), gpus)], workers, each, "this machine")
            yield Place(found, {_WORKER: 1.0, "GPU": found.gpus}, folder, is_ours=True)
    finally:
        # What belongs to Ray goes first, and none of it in another thread while Ray ends: Ray
        # takes a handle that it hears of too late for a reason to end the process, with 1.
        gc.collect()
        gc.freeze()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _reachable() -> list[Node]:
    """The nodes there are, and those that the cluster starts when trials wait for them."""
    now = nodes()
    return [*now, *joinable(now)]


def _connect(address: str, study: pathlib.Path) -> None:
    import ray

    # Its hosts need not have the project, only what it requires; nor what the study imports.
    sent = {ROOT / "hpo", *own_modules(study, [ROOT])}
    environment = {"py_modules": sorted(map(str, sent)), "excludes": ["__pycache__"]}
    try:
        ray.init(
            address=address,
            runtime_env=environment,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except ray.exceptions.RuntimeEnvSetupError as error:
        # Its second line names the module; the advice behind that is for Ray's own options.
        why = str(error.error_message or error).split(". ")[0]
        raise UsageError(
            f"what {study.name} imports cannot be sent to the Ray cluster ({why}): keep data apart "
            "from modules, or list it in a .rayignore"
        ) from error
    except Exception as error:  # Ray raises what its many parts raise
        if "Version mismatch" in str(error):
            raise UsageError(
                f"{sys.executable} cannot join the Ray cluster at {address}, whose versions it has "
                f"not ({error}): take the cluster's own interpreter"
            ) from error
        raise PlaceError(
            f"the Ray cluster at {address} does not answer ({error}): see RAY_ADDRESS, and its "
            "token in RAY_AUTH_TOKEN_PATH"
        ) from error


def _start(folder: pathlib.Path, workers: int) -> None:
    """Starts Ray on this machine, once more where the first start failed.

    Ray gives its own processes half a minute to come up, which is little where others are
    busy too.
    """
    import ray

    for is_last in (False, True):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                resources={_WORKER: _ANY_NUMBER},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=_OBJECTS_BYTES,
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray raises what its many parts raise
            if is_last:
                raise PlaceError(f"Ray does not start on this machine: {error}") from error
            log.warning("Ray did not start, and is started again: %s", error)
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return


def _folder(run: Run) -> pathlib.Path:
    """Where Ray keeps what it writes of a search here, which nothing reads.

    Its sockets lie there too, whose names must be short.
    """
    name = hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:12]
    return pathlib.Path(tempfile.gettempdir()) / f"tunefleet-ray-{name}"
