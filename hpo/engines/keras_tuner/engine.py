"""The engine `keras-tuner`: which processes it has, and what each of them does."""

from __future__ import annotations

import asyncio
import pathlib

from hpo import env
from hpo.engines.base import Engine
from hpo.errors import UsageError
from hpo.registry import SAMPLERS
from hpo.run import Run


class KerasTunerEngine(Engine):
    """A chief and workers that speak KerasTuner's distributed protocol."""

    name = "keras-tuner"
    samplers = tuple(SAMPLERS)
    pruners = ("none",)

    def check_host(self, host: str) -> None:
        """The chief has no TLS yet, so its token would cross a network in the clear."""
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise UsageError(
                f"the chief cannot serve at {host}: it has no TLS yet, so only loopback "
                "(127.0.0.1) is safe"
            )

    def roles(self, workers: int) -> list[str]:
        """The chief's id and the workers' ids."""
        return [env.CHIEF_ID, *(f"worker-{number}" for number in range(workers))]

    def lead(self, run: Run, role: env.Role) -> int:
        """Is the chief of ``run`` until its search is over."""
        from hpo.engines.keras_tuner.lead import lead

        self.check_host(role.host)
        return asyncio.run(lead(run, role))

    def prepare(self, study_file: pathlib.Path) -> None:
        """Starts the fork server, which imports the study."""
        from hpo.engines.keras_tuner.worker import prepare

        prepare(study_file)

    def work(self, role: env.Role, token_file: pathlib.Path, study_file: pathlib.Path) -> int:
        """Is the worker ``role`` until the chief says that it is over."""
        from hpo.engines.keras_tuner.worker import work

        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise UsageError(
                f"cannot read the token in {token_file}: {error.strerror}: "
                f"set {env.TOKEN_FILE} to the run's token file"
            ) from error
        host = f"[{role.host}]" if ":" in role.host else role.host
        return work(role.tuner_id, f"{host}:{role.port}", token, study_file)

    def drain(self, run: Run, address: str, immediate: bool) -> None:
        """Asks the chief of ``run`` to hand out nothing more."""
        from hpo.engines.keras_tuner.client import ChiefClient

        client = ChiefClient(address, run.token, "", "")
        try:
            client.drain(immediate)
        finally:
            client.close()


ENGINE = KerasTunerEngine()
