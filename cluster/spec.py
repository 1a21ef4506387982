"""What was asked of the place that a search runs in."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

from hpo import env

DEFAULT_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """Workers, their devices, the chief's address; nothing here changes what is tried."""

    workers: int = DEFAULT_WORKERS
    gpus_per_worker: float | None = None
    host: str = "127.0.0.1"
    port: int = 0
    data_dir: pathlib.Path | None = None
    insecure: bool = False
    grace_s: float = env.DEFAULT_GRACE_S

    @classmethod
    def from_options(cls, options: argparse.Namespace, workers: int) -> ClusterSpec:
        """The spec that was typed; ``workers`` where their number was not."""
        return cls(
            workers=options.workers or workers,
            gpus_per_worker=options.gpus_per_worker,
            host=options.host,
            port=options.port,
            data_dir=options.data_dir,
            insecure=options.insecure,
            grace_s=env.grace_s() if options.grace is None else options.grace,
        )
