"""What engines have in common that are led by a chief: its processes, and what they do."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpo import env
from hpo.address import joined
from hpo.crew import worker_ids
from hpo.engines.base import Engine
from hpo.run import Run
from hpo.token_file import read

if TYPE_CHECKING:
    from hpo.fleet.projection import Kind


class FleetEngine(Engine):
    """A chief and, where nothing else is said, workers that are agents with a trial each."""

    def roles(self, workers: int) -> list[str]:
        """The chief's id and the workers' ids."""
        return [env.CHIEF_ID, *worker_ids(workers)]

    def lead(self, run: Run, role: env.Role) -> int:
        """Is the chief of ``run`` until its search is over."""
        from hpo.fleet.lead import lead

        return asyncio.run(lead(run, role, also=self.projections()))

    def projections(self) -> Sequence[Kind]:
        """Where a search is shown besides TensorBoard."""
        return ()

    def prepare(self, study_file: pathlib.Path) -> None:
        """Starts the fork server, which imports the study."""
        from hpo.fleet.worker import prepare

        prepare(study_file)

    def work(self, role: env.Role, token_file: pathlib.Path, study_file: pathlib.Path) -> int:
        """Is the worker ``role`` until the chief says that it is over."""
        from hpo.fleet.worker import work

        secret = read(token_file)
        return work(role.tuner_id, joined(role.host, role.port), secret, study_file)

    def drain(self, run: Run, address: str, immediate: bool, suspend: bool = False) -> None:
        """Asks the chief of ``run`` to hand out nothing more."""
        from hpo.fleet.client import calling

        with calling(run, address) as client:
            client.drain(immediate, suspend)

    def scale(self, run: Run, address: str, workers: int) -> int | None:
        """Tells the chief of ``run`` how many workers are wanted."""
        from hpo.fleet.client import calling

        with calling(run, address) as client:
            return client.scale(workers)
