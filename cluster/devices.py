"""Which processors and GPUs each worker of a host gets."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from hpo import env
from hpo.errors import UsageError

_NVIDIA = pathlib.Path("/proc/driver/nvidia/gpus")


@dataclasses.dataclass(frozen=True)
class Devices:
    """A worker's share of a host."""

    cpus: tuple[int, ...]
    gpus: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the share is named in the records."""
        return ",".join(f"gpu:{gpu}" for gpu in self.gpus) or "cpu:" + ",".join(map(str, self.cpus))

    def to_env(self) -> dict[str, str]:
        """The variables that keep a worker and its trials to this share."""
        return {
            **env.threads(len(self.cpus)),
            env.CPUS: ",".join(map(str, self.cpus)),
            # Without a GPU of its own a worker must not see those of the others either.
            env.VISIBLE_GPUS: ",".join(self.gpus) or "-1",
            env.DEVICE: self.name,
        }


def gpus_here(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, else all."""
    named = environ.get(env.VISIBLE_GPUS)
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    found = sorted(_NVIDIA.iterdir()) if _NVIDIA.is_dir() else []
    return [str(number) for number in range(len(found))]


def most_workers(gpus_per_worker: float | None, gpus: Sequence[str]) -> int | None:
    """How many workers ``gpus`` are enough for; None where they take no part."""
    if not gpus or gpus_per_worker == 0:
        return None
    return int(len(gpus) // (gpus_per_worker or 1))


def share(
    workers: int, gpus_per_worker: float | None, cpus: Sequence[int], gpus: Sequence[str]
) -> list[Devices]:
    """Each worker's share of ``cpus`` and ``gpus``.

    ``gpus_per_worker`` None gives one to each worker where the host has any; workers beyond
    the last GPU share. Raises UsageError where more are asked for than there are.
    """
    if gpus_per_worker and gpus_per_worker % 1:
        raise UsageError(
            f"--gpus-per-worker {gpus_per_worker:g} shares a GPU, which only --engine ray does: "
            "give a whole number"
        )
    each_gpus = None if gpus_per_worker is None else int(gpus_per_worker)
    if gpus_per_worker and workers * gpus_per_worker > len(gpus):
        raise UsageError(
            f"--workers {workers} --gpus-per-worker {each_gpus} needs "
            f"{workers * gpus_per_worker:g} GPUs and this host has {len(gpus)}: ask for fewer"
        )
    each = max(1, len(cpus) // workers)
    shares = []
    for number in range(workers):
        own_cpus = tuple(cpus[(number * each + i) % len(cpus)] for i in range(each))
        if each_gpus is None:
            own_gpus = [gpus[number % len(gpus)]] if gpus else []
        else:
            own_gpus = list(gpus[number * each_gpus :][:each_gpus])
        shares.append(Devices(own_cpus, tuple(own_gpus)))
    return shares
