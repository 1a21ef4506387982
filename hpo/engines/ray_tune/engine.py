"""The engine `ray`: Ray Tune places and drives the trials, our coordinator decides."""

from __future__ import annotations

import asyncio
import pathlib

from hpo import env
from hpo.engines.base_fleet import FleetEngine
from hpo.engines.ray_tune.reach import check_reachable
from hpo.errors import UsageError
from hpo.run import Run


class RayEngine(FleetEngine):
    """A chief alone: its workers are actors, which Ray starts where it has room."""

    name = "ray"
    requires = ("ray",)

    def roles(self, workers: int) -> list[str]:
        """The leader's id; Ray starts all else."""
        return [env.CHIEF_ID]

    def lead(self, run: Run, role: env.Role) -> int:
        """Is the chief of ``run``, with Ray Tune beside it, until its search is over."""
        from hpo.engines.ray_tune.beside import ray_tune
        from hpo.fleet.lead import lead

        return asyncio.run(lead(run, role, ray_tune))

    def check_place(self, host: str, insecure: bool, by_hand: bool) -> None:
        """Raises UsageError or PlaceError where the Ray cluster is none, or not there."""
        check_reachable()

    def prepare(self, study_file: pathlib.Path) -> None:
        """Nothing: the actors import the study where they are."""

    def work(self, role: env.Role, token_file: pathlib.Path, study_file: pathlib.Path) -> int:
        """Refused: Ray starts its workers itself."""
        raise UsageError(
            "engine ray has no workers to start: let the host join the Ray cluster "
            "(ray start --address=...) instead"
        )


ENGINE = RayEngine()
