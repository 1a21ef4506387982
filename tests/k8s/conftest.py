"""One control plane for all tests that need one, with two nodes whose pods are processes."""

from __future__ import annotations

import itertools
import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.k8s.control_plane import ControlPlane
from tests.k8s.namespace import Namespace
from tests.support.cli_runs import STUDIES

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    # Containers are another user's, who has to get at what lies here.
    folder = tmp_path_factory.mktemp("plane")
    for parent in (folder, *folder.parents):
        if parent != pathlib.Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    made = ControlPlane(folder)
    try:
        made.add_node("one", 1, "--gpus", "2")
        made.add_node("two", 2)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def namespaces(plane: ControlPlane) -> Callable[[], Namespace]:
    return lambda: Namespace(plane, f"tests-{next(_NUMBERS)}")


@pytest.fixture
def space(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    made = namespaces()
    yield made
    made.remove()


class Held:
    """A study of a person's own whose trials hold until the test lets their numbers go.

    What is to happen while trials run happens then, however fast or slow the machine is.
    """

    # In the order of their numbers.
    words = ("--sampler=grid",)

    def __init__(self, plane: ControlPlane, folder: pathlib.Path) -> None:
        name = f"free-{next(_NUMBERS)}"
        self._file = plane.told / name
        self.free(0)
        text = (STUDIES / "numbered.py").read_text()
        path = folder / "numbered.py"
        path.write_text(text.replace("/nonexistent", f"/told/{name}"))
        self.study = str(path)
        # The same, for an image that has it.
        self.inside = f"/told/{name}.py"
        shutil.copy(path, plane.told / f"{name}.py")

    def free(self, count: int) -> None:
        """Lets the first ``count`` trials end, those that run and those to come."""
        draft = self._file.with_suffix(".new")
        draft.write_text(str(count))
        draft.rename(self._file)


@pytest.fixture
def held(plane: ControlPlane, tmp_path: pathlib.Path) -> Held:
    return Held(plane, tmp_path)
