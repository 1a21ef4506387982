"""What to type on another host, so that it works for a search which is led here."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable

from cluster.verbs.control import chief_address
from hpo import env
from hpo.address import host_of
from hpo.run import Run
from hpo.study import STUDIES_DIR


class Invitation:
    """Prints it once, as soon as the chief serves; then shows whatever else is to be shown."""

    def __init__(self, run: Run, show: Callable[[], None]) -> None:
        self._run = run
        self._show = show
        self._printed = False

    def show(self) -> None:
        """Looks whether the chief serves, and calls what else there is to show."""
        if not self._printed and (address := chief_address(self._run)):
            print(text(self._run, address), flush=True)
            self._printed = True
        self._show()


def text(run: Run, address: str) -> str:
    """The commands that start a worker of ``run``, whose chief is at ``address``, elsewhere."""
    token = f"{run.id}.token"
    source = f"{socket.gethostname()}:{run.token_file.resolve()}"
    host, port = host_of(address), int(address.rpartition(":")[2])
    variables = {**env.Role("worker-2nd-host", host, port).to_env(), env.TOKEN_FILE: token}
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    command = ["python", "launch.py", "run", *_study(run)]
    if run.request.engine != "keras-tuner":
        command += ["--engine", run.request.engine]
    return "\n".join(
        [
            "a worker on another host (each with an id of its own, and the same study file):",
            f"  scp -p {shlex.quote(source)} {token}",
            f"  {' '.join(words)} {shlex.join(command)}",
        ]
    )


def _study(run: Run) -> list[str]:
    """The study as it is typed where the project is, or where the person's own file is."""
    path = run.study_path()
    if path.parent == STUDIES_DIR:
        return [path.stem.replace("_", "-")]
    return [path.name]
