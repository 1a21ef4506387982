"""Fixtures for runs of the real command line."""

from __future__ import annotations

import importlib
import os
import pathlib
import signal
import subprocess
import types
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.cli_runs import LiveRun
from tests.support.preloaded_python import PreloadedPython

# No example has a deadline: a busy machine is no fault of it. The same examples are tried each
# time, but by `make test-stress`, which draws others.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _PATIENT, derandomize=True)
settings.register_profile("drawn", _PATIENT)
settings.load_profile("same")

# Fixtures that several files share.
pytest_plugins = (
    "tests.support.written_runs",
    "tests.support.ledger_fixtures",
    "tests.support.remote_chiefs",
    "tests.support.ray_search",
)


def pytest_configure() -> None:
    """Gives what the tests start the surroundings of a person's shell.

    A background job ignores Ctrl-C. Hundreds of processes that may not keep what they compile
    take a third of their processor time for it.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the tests that drive a browser leave their pictures."""
    parser.addoption("--screenshots", type=pathlib.Path, metavar="DIR")


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., LiveRun]]:
    """Starts runs that are ended, with all their processes, when the test is.

    The trials of one that is ``held`` wait after their first report until they are released.
    """
    started: list[LiveRun] = []

    def begin(
        run_id: str, *arguments: str, env: dict[str, str] | None = None, held: bool = False
    ) -> LiveRun:
        gate = tmp_path / f"{run_id}-{len(started)}-goes-on" if held else None
        started.append(LiveRun(tmp_path / "runs", run_id, *arguments, env=env, gate=gate))
        return started[-1]

    yield begin
    for run in started:
        run.end()


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreloadedPython]:
    """Python processes that begin with TensorFlow and Keras imported."""
    python = PreloadedPython(tmp_path_factory.mktemp("preloaded"))
    yield python
    python.close()


@pytest.fixture(scope="session")
def kt() -> types.ModuleType:
    """The real package; from here on this process has its classes, not the lean ones."""
    return importlib.import_module("keras_tuner")
