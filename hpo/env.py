"""Every environment variable that is read or written, in one place."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping

from hpo.errors import UsageError

# KerasTuner's own three: they make a process the chief or a worker of a distributed search.
TUNER_ID = "KERASTUNER_TUNER_ID"
ORACLE_IP = "KERASTUNER_ORACLE_IP"
ORACLE_PORT = "KERASTUNER_ORACLE_PORT"

# The file with the run's token (and, beyond loopback, its certificate).
TOKEN_FILE = "TUNEFLEET_TOKEN_FILE"
# A certificate (PEM) and its key for a chief beyond loopback, instead of the run's own.
TLS_CERT = "TUNEFLEET_TLS_CERT"
TLS_KEY = "TUNEFLEET_TLS_KEY"
# A folder with the four files of Fashion-MNIST.
DATA_DIR = "TUNEFLEET_DATA_DIR"
# Where unpacked data sets are kept for all workers of a host.
CACHE_DIR = "TUNEFLEET_CACHE_DIR"
# The file of the study that a fork server imports before its first trial.
PRELOAD = "TUNEFLEET_PRELOAD"
# The processors a worker is pinned to, as "0,1".
CPUS = "TUNEFLEET_CPUS"
# The name of the worker's device as it stands in the records.
DEVICE = "TUNEFLEET_DEVICE"
# Set by `run` for the processes it starts: they leave when their standard input closes.
SUPERVISED = "TUNEFLEET_SUPERVISED"

# Set for a chief that serves KerasTuner's own workers too, which know no token.
INSECURE = "TUNEFLEET_INSECURE"

# Seconds in which running trials may end after SIGTERM, before they are put back.
GRACE = "TUNEFLEET_GRACE"
DEFAULT_GRACE_S = 30.0

# The handle under which this run is known where its commands are typed, if that is elsewhere.
HANDLE = "TUNEFLEET_HANDLE"

# The port at which a chief serves its figures for Prometheus; none without it.
METRICS_PORT = "TUNEFLEET_METRICS_PORT"

# Where a copy of a run is kept, for the containers of a chief on Kubernetes that do so.
STORE = "TUNEFLEET_STORE"

# How many GPUs each worker is to have, for an engine that shares them out itself.
GPUS_PER_WORKER = "TUNEFLEET_GPUS_PER_WORKER"

# How many nodes for workers a Ray cluster whose autoscaler cannot be asked has at most.
MOST_NODES = "TUNEFLEET_MOST_NODES"

# MB of its GPU that a trial process may take, where it has a part of one.
GPU_MEMORY = "TUNEFLEET_GPU_MEMORY"

# Set for a worker that imports its study first and hears on standard input which one it is.
AWAIT_ROLE = "TUNEFLEET_AWAIT_ROLE"

# Set for one of those besides: the file descriptor to which it says what the study is.
READ_TO = "TUNEFLEET_READ_TO"

# Set for a chief that `run` started: the file descriptor to which it says why it gives up.
LAST_WORDS = "TUNEFLEET_LAST_WORDS"

CHIEF_ID = "chief"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclasses.dataclass(frozen=True)
class Role:
    """Which process of a distributed search this one is, by KerasTuner's variables."""

    tuner_id: str
    host: str
    port: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self.tuner_id == CHIEF_ID

    def to_env(self) -> dict[str, str]:
        """The variables that make a child process this role."""
        return {TUNER_ID: self.tuner_id, ORACLE_IP: self.host, ORACLE_PORT: str(self.port)}


def role(environ: Mapping[str, str] = os.environ) -> Role | None:
    """The role that KerasTuner's variables give this process; None without any.

    Raises UsageError where only some are set, the port is no number, or an id merely
    contains "chief" (KerasTuner would take such a worker for the chief).
    """
    values = {name: environ.get(name, "") for name in (TUNER_ID, ORACLE_IP, ORACLE_PORT)}
    if not any(values.values()):
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise UsageError(f"{', '.join(missing)} not set: a role by hand needs all three variables")
    tuner_id = values[TUNER_ID]
    if "chief" in tuner_id and tuner_id != CHIEF_ID:
        raise UsageError(
            f"{TUNER_ID}={tuner_id!r} contains 'chief': only the chief may, and is named 'chief'"
        )
    port = values[ORACLE_PORT]
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise UsageError(f"{ORACLE_PORT}={port!r} is not a port: give a number from 1 to 65535")
    return Role(tuner_id, values[ORACLE_IP], int(port))


def cache_dir(environ: Mapping[str, str] = os.environ) -> pathlib.Path:
    """Where unpacked data sets lie, for every worker of this host and user."""
    if own := environ.get(CACHE_DIR):
        return pathlib.Path(own)
    base = environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "tunefleet"


def of_project(root: pathlib.Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables with which a child finds the project, wherever it runs, and nothing instead.

    Python would look into the working directory first, where a person's ``queue.py`` or
    ``hpo`` may lie.
    """
    path = [str(root), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path)), "PYTHONSAFEPATH": "1"}


def data_variables(data_dir: pathlib.Path | None) -> dict[str, str]:
    """The variable that tells a child process where the data set's files are, if it is known."""
    return {DATA_DIR: str(data_dir.resolve())} if data_dir else {}


def insecure(is_open: bool) -> dict[str, str]:
    """The variable of a chief that serves without a token, if it is to."""
    return {INSECURE: "1"} if is_open else {}


def grace(seconds: float) -> dict[str, str]:
    """The variable that tells a process how long SIGTERM leaves its trials."""
    return {GRACE: f"{seconds:g}"}


def grace_s(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds that SIGTERM leaves running trials; UsageError where they are no such number."""
    text = environ.get(GRACE) or str(DEFAULT_GRACE_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{GRACE}={text!r}: give seconds from 0, such as 30")
    return seconds


def metrics_port(environ: Mapping[str, str] = os.environ) -> int | None:
    """Where figures for Prometheus are served; None where nowhere. UsageError for no port."""
    text = environ.get(METRICS_PORT)
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"{METRICS_PORT}={text!r}: give a port from 1 to 65535")
    return int(text)


def gpus_each(count: float | None) -> dict[str, str]:
    """The variable that says how many GPUs each worker gets, if somebody said so."""
    return {} if count is None else {GPUS_PER_WORKER: f"{count:g}"}


def gpus_per_worker(environ: Mapping[str, str] = os.environ) -> float | None:
    """How many GPUs each worker is to have, or which part of one; None where nobody said."""
    text = environ.get(GPUS_PER_WORKER)
    return None if text is None else float(text)


def most_nodes(environ: Mapping[str, str] = os.environ) -> int:
    """How many nodes for workers this Ray cluster may come to have; 0 where nobody said."""
    return int(environ.get(MOST_NODES, "0"))


def gpu_memory(limit_mb: int | None) -> dict[str, str]:
    """The variable that limits what a trial process takes of its GPU's memory, if anything."""
    return {} if limit_mb is None else {GPU_MEMORY: str(limit_mb)}


def gpu_memory_mb(environ: Mapping[str, str] = os.environ) -> int | None:
    """MB of its GPU's memory that this process may take; None without a limit."""
    text = environ.get(GPU_MEMORY)
    return None if text is None else int(text)


def quieten_grpc() -> None:
    """Lets gRPC write errors alone, unless somebody wants to see more."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def threads(count: int) -> dict[str, str]:
    """Variables that give a trial process ``count`` threads in every library it uses."""
    text = str(count)
    return {
        "OMP_NUM_THREADS": text,
        # Where it is set it counts for NumPy more than the one above.
        "OPENBLAS_NUM_THREADS": text,
        "TF_NUM_INTRAOP_THREADS": text,
        "TF_NUM_INTEROP_THREADS": text,
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
