"""From what was asked to the processes that will run: pure, so that it can be printed."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Sequence

from cluster.devices import Devices
from cluster.spec import ClusterSpec
from hpo import env
from hpo.child import ROOT
from hpo.run import Run


@dataclasses.dataclass(frozen=True)
class ProcessPlan:
    """One process: its role, what it is started with, and its log under the run's folder."""

    role: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log: pathlib.Path

    def render(self) -> str:
        """The process as a line for a shell."""
        variables = [f"{name}={shlex.quote(text)}" for name, text in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])


@dataclasses.dataclass(frozen=True)
class JobPlan:
    """The processes of one search on one host. The workers' address is the chief's own."""

    run: Run
    spec: ClusterSpec
    roles: tuple[str, ...]
    devices: tuple[Devices, ...]

    def chief(self, port: int) -> ProcessPlan:
        """The chief, at ``port`` (0: a free one)."""
        return self._process(env.Role(self.roles[0], self.spec.host, port), {})

    def worker(self, number: int, port: int) -> ProcessPlan:
        """The ``number``-th worker, of a chief at ``port``."""
        role = env.Role(self.roles[1 + number], self.spec.host, port)
        return self._process(role, self.devices[number].to_env())

    def _process(self, role: env.Role, variables: dict[str, str]) -> ProcessPlan:
        environment = {**role.to_env(), **variables, "PYTHONPATH": str(ROOT)}
        environment[env.TOKEN_FILE] = str(self.run.token_file.resolve())
        environment[env.SUPERVISED] = "1"
        environment |= env.data_variables(self.spec.data_dir)
        what = self.run.folder if role.is_chief else self.run.study_path()
        command = (
            sys.executable,
            "-m",
            "cluster.entrypoint",
            self.run.request.engine,
            str(what.resolve()),
        )
        return ProcessPlan(
            role.tuner_id, command, environment, self.run.logs / f"{role.tuner_id}.log"
        )


def plan(run: Run, spec: ClusterSpec, roles: Sequence[str], devices: Sequence[Devices]) -> JobPlan:
    """The processes of ``run``; ``roles`` are the engine's, the leader first."""
    return JobPlan(run, spec, tuple(roles), tuple(devices))
