"""The Ray jobs of a search: one for each time that it was started, by names that say which.

Ray starts a job of one name once, whoever asks; so the name is made from the run's id, and
its number from how often the run was started before.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from typing import Any

from cluster.launchers.ray.connection import Cluster
from hpo.run import SearchRequest
from hpo.status import DONE, FAILED, RUNNING, STOPPED

# Run ids have no underscore, so no name can be taken for another's.
_NAME = re.compile(r"tunefleet_([a-z0-9-]+)_([0-9]+)")
# What launch.py leaves with when it has work left, or was ended by a signal.
_LEFT = (75, 130, 137, 143, -2, -9, -15)
REFUSED = 2
# What Ray says before the last lines of the log of a job whose process failed.
_OF_LOG = "Job entrypoint command failed"
# What it writes into that log, now and then below the process's first words.
_OF_START = "Running entrypoint for job "


def name(run_id: str, number: int) -> str:
    """The name of the job that starts a run for the ``number``-th time."""
    return f"tunefleet_{run_id}_{number}"


def reading_name(run_id: str) -> str:
    """A name for a job that reads a run."""
    return f"tunefleet_{run_id}_reads_{secrets.token_hex(4)}"


@dataclasses.dataclass(frozen=True)
class Job:
    """What a head remembers of one start of a run.

    ``status`` is Ray's word, ``exit_code`` None where the search's process did not end by
    itself; ``runs`` is the folder of runs on the head, ``python`` the interpreter.
    """

    name: str
    run_id: str
    number: int
    status: str
    exit_code: int | None
    message: str
    runs: str
    python: str
    request: SearchRequest | None
    started_ms: int

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def lacks_project(self) -> bool:
        """Whether neither what was sent with the run nor the installed project was there."""
        return self.ended and lacks_project(self.message)

    @property
    def refused(self) -> bool:
        """Whether it ended before the search began, since something was wrong with it."""
        return self.ended and (self.exit_code == REFUSED or self.lacks_project)

    @property
    def state(self) -> str:
        """What `status` would call it, as far as Ray knows."""
        if not self.ended:
            return RUNNING
        if self.status == "SUCCEEDED":
            return DONE
        by_itself = self.status == "FAILED" and self.exit_code not in (None, *_LEFT)
        return FAILED if by_itself else STOPPED

    @property
    def words(self) -> str:
        """How it ended, in a line; "" while it runs or where it ended well."""
        if self.status in ("PENDING", "RUNNING", "SUCCEEDED"):
            return ""
        said = [line for line in self.message.splitlines() if line.startswith("launch.py: ")]
        if said:
            return said[-1].removeprefix("launch.py: ")
        if self.exit_code in _LEFT:
            return "it was stopped with work left"
        lines = [line for line in self.message.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(_OF_START)]
        which = -1 if self.message.startswith(_OF_LOG) else 0
        return lines[which].strip() if lines else ""

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints of it."""
        ended = {"exit_code": self.exit_code, "message": self.words or None}
        return {"name": self.name, "status": self.status, **ended}


def jobs_of(cluster: Cluster, run_id: str | None = None) -> list[Job]:
    """The starts of a run, or of all runs, that the head remembers, in their order."""
    found = [job for job in map(_job, cluster.jobs()) if job and run_id in (None, job.run_id)]
    return sorted(found, key=lambda job: (job.started_ms, job.number))


def job_named(cluster: Cluster, job_name: str) -> Job:
    """One start of a run; PlaceError where the head has forgotten it."""
    found = _job(cluster.job(job_name))
    assert found, job_name
    return found


def lacks_project(words: str) -> bool:
    """Whether this is what an interpreter says that does not find the project."""
    return "No module named 'cluster" in words


def notes(run_id: str, runs: str, python: str, request: SearchRequest | None) -> dict[str, str]:
    """What is noted with a job, for whoever asks for it later."""
    asked = json.dumps(dataclasses.asdict(request)) if request else ""
    return {"tunefleet": run_id, "runs": runs, "python": python, "request": asked}


def _job(details: Any) -> Job | None:
    match = _NAME.fullmatch(details.submission_id or "")
    noted = details.metadata or {}
    if not match or "tunefleet" not in noted:
        return None
    asked = noted.get("request")
    return Job(
        name=match[0],
        run_id=match[1],
        number=int(match[2]),
        status=str(details.status.value),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        runs=noted["runs"],
        python=noted["python"],
        request=SearchRequest(**json.loads(asked)) if asked else None,
        started_ms=details.start_time or 0,
    )
