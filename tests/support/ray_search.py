"""One Ray cluster for many tests, and searches on it whose trials a test holds."""

from __future__ import annotations

import pathlib
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cli_runs import HELD_UNTIL, PATIENCE_S, STUDIES, HeldRun, begin
from tests.support.ray_head import RayHead

# Ray's own patience with a job that it tells to end; a job of ours has another.
NO_PATIENCE = {"RAY_JOB_STOP_WAIT_TIME_S": "0"}
# Ray may put a job on whatever node it likes, as one may configure it.
ANYWHERE = {"RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES": "1"}
QUICKLY = {"SLOW_STEP_S": "0", "SLOW_EPOCH_S": "0"}


class RayCluster(RayHead):
    """A head that takes no trials, as on clouds, and a node that does.

    ``home`` is the home at the head, ``elsewhere`` the one of the node.
    """

    def __init__(self) -> None:
        super().__init__(cpus=0, **ANYWHERE, **NO_PATIENCE, **QUICKLY)

    def start(self) -> None:
        """Starts both, with no memory of an earlier cluster."""
        super().start()
        self.elsewhere = self.join(cpus=2)

    def search(self, run_id: str, folder: pathlib.Path) -> HeldSearch:
        """A search to be submitted; what it is held by lies in ``folder``."""
        return HeldSearch(self, run_id, folder)

    def begin(self, *words: str, **own: str) -> subprocess.Popen[str]:
        """A `launch.py` of somebody who has the token, in a shell of its own."""
        return begin(*words, env={**self.guard, **own})

    def ask(self, path: str) -> str:
        """What the dashboard answers to whoever has the token; "" for what it does not know."""
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        asked = urllib.request.Request(f"http://{self.where}{path}", headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return ""
        return text


class HeldSearch(HeldRun):
    """A search of slow.py on a cluster, whose trials are held; read where its head has it."""

    def __init__(self, cluster: RayCluster, run_id: str, folder: pathlib.Path) -> None:
        super().__init__(cluster.home / "runs", run_id, folder / f"{run_id}-goes-on")
        self._cluster = cluster
        self.handle = f"raycluster://{cluster.where}/{run_id}"
        self.study = folder / f"{run_id}.py"
        held = f'os.environ.get("{HELD_UNTIL}")'
        text = (STUDIES / "slow.py").read_text()
        assert text.count(held) == 1
        self.study.write_text(text.replace(held, repr(str(self.gate))))

    def submit(self, *more: str) -> list[str]:
        """The words that submit it."""
        place = ["--on", "ray", "--address", self._cluster.where, "--id", self.id]
        return ["submit", str(self.study), *place, "--seed", "1", *more]

    def job(self, number: int) -> str:
        """What Ray says of the job that started it for the ``number``-th time; "" without one."""
        return self._cluster.ask(f"/api/jobs/tunefleet_{self.id}_{number}")

    def completed(self) -> list[dict[str, Any]]:
        """The attempts that completed so far."""
        return [row for row in self.rows() if row["state"] == "COMPLETED"]


def ended(shell: subprocess.Popen[str]) -> tuple[int, str, str]:
    """How a `launch.py` left, and what it said."""
    out, err = shell.communicate(timeout=PATIENCE_S)
    return shell.returncode, out, err


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """The one for all tests of `--on ray`; whoever ends it starts it again."""
    made = RayCluster()
    yield made
    made.close()
