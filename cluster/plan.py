"""From what was asked to the processes that will run: pure."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

from cluster.devices import Devices
from cluster.spec import ClusterSpec
from hpo import env
from hpo.address import from_here
from hpo.child import ROOT
from hpo.run import Run


@dataclasses.dataclass(frozen=True)
class ProcessPlan:
    """One process: its role, what it is started with, and its log under the run's folder."""

    role: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log: pathlib.Path


@dataclasses.dataclass(frozen=True)
class JobPlan:
    """The processes of one search on one host. The workers' address is the chief's own.

    ``devices`` is empty where the engine starts its workers itself.
    """

    run: Run
    spec: ClusterSpec
    roles: tuple[str, ...]
    devices: tuple[Devices, ...]

    def chief(self, port: int) -> ProcessPlan:
        """The chief, at ``port`` (0: a free one)."""
        role = self.role(0, port)
        command = _command(self.run.request.engine, self.run.folder)
        environment = _supervised(self.spec) | role | env.insecure(self.spec.insecure)
        environment |= env.gpus_each(self.spec.gpus_per_worker)
        return ProcessPlan(role[env.TUNER_ID], command, environment, self.log(0))

    def worker(self, number: int, port: int) -> ProcessPlan:
        """The ``number``-th worker, of a chief at ``port``."""
        role = self.role(1 + number, port)
        engine, study = self.run.request.engine, self.run.study_path()
        waiting = waiting_worker(engine, study, self.spec, self.devices[number])
        environment = {**waiting.environment, **role}
        del environment[env.AWAIT_ROLE]
        name = role[env.TUNER_ID]
        return ProcessPlan(name, waiting.command, environment, self.log(1 + number))

    def role(self, position: int, port: int) -> dict[str, str]:
        """The variables that make a process the one in this ``position``, the chief first."""
        # The chief listens at the host that was asked for; its workers here dial it.
        host = self.spec.host if position == 0 else from_here(self.spec.host)
        role = env.Role(self.roles[position], host, port)
        return {**role.to_env(), env.TOKEN_FILE: str(self.run.token_file.resolve())}

    def log(self, position: int) -> pathlib.Path:
        """Where the process in this ``position`` logs."""
        return self.run.logs.resolve() / f"{self.roles[position]}.log"


def waiting_worker(
    engine: str, study: pathlib.Path, spec: ClusterSpec, devices: Devices
) -> ProcessPlan:
    """A worker that can be started before there is a run: it is told its role later."""
    environment = {**_supervised(spec), **devices.to_env(), env.AWAIT_ROLE: "1"}
    nowhere = pathlib.Path(os.devnull)
    return ProcessPlan("a worker", _command(engine, study), environment, nowhere)


def _supervised(spec: ClusterSpec) -> dict[str, str]:
    own = {env.SUPERVISED: "1", **env.of_project(ROOT), **env.grace(spec.grace_s)}
    return own | env.data_variables(spec.data_dir)


def _command(engine: str, what: pathlib.Path) -> tuple[str, ...]:
    return sys.executable, "-m", "cluster.entrypoint", engine, str(what.resolve())


def plan(run: Run, spec: ClusterSpec, roles: Sequence[str], devices: Sequence[Devices]) -> JobPlan:
    """The processes of ``run``; ``roles`` are the engine's, the leader first."""
    return JobPlan(run, spec, tuple(roles), tuple(devices))
