"""A study: what a person's file says, as data (Study) and as code (StudyModule)."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, Self

from hpo.errors import StudyError, TuneFleetError, UsageError
from hpo.registry import suggest
from hpo.space import SearchSpace
from hpo.trial import Direction, Value

STUDIES_DIR = pathlib.Path(__file__).resolve().parent.parent / "studies"
DEFAULT_OBJECTIVE = "val_accuracy"
DEFAULT_EPOCHS = 10
DEFAULT_BATCH_SIZE = 32

_MAXIMIZED = re.compile(r"(^|_)(accuracy|acc|auc|precision|recall|f1|score|iou|r2)($|_)")
_MINIMIZED = re.compile(r"(^|_)(loss|error|mse|mae|rmse|perplexity|regret)($|_)")


class Form:
    """The two forms of a person's file."""

    KERAS = "keras"
    FUNCTION = "function"


@dataclasses.dataclass(frozen=True)
class Study:
    """What a search must know of a study; plain data, read once in a process of its own.

    ``digest`` is the hash of the file's content: every process of a search must have the
    same. ``metrics`` are the names that a Keras model reports, empty where a study's own
    ``fit`` or ``evaluate`` decides them.
    """

    name: str
    form: str
    objective: str
    direction: Direction
    epochs: int
    batch_size: int
    space: SearchSpace
    grid: dict[str, list[Value]]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """The study as JSON; :meth:`from_json` gives an equal one back."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "direction": self.direction.value, "space": self.space.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """A study from what :meth:`to_json` gave."""
        space = SearchSpace.from_json(row["space"])
        return cls(**{**row, "space": space, "direction": Direction(row["direction"])})


def find_study(name: str) -> pathlib.Path:
    """The file of a study by its name, or by the path to a person's own file.

    Raises UsageError for an unknown name (saying what is near), StudyError for a path at
    which there is no file.
    """
    if name.endswith(".py") or "/" in name:
        path = pathlib.Path(name).expanduser()
        if not path.is_file():
            raise StudyError(f"no study at {name}: give the path to a Python file that exists")
        return path.resolve()
    known = {p.stem.replace("_", "-"): p for p in STUDIES_DIR.glob("[!_]*.py")}
    if name not in known:
        raise UsageError(
            f"unknown study {name!r}: {suggest(name, known)} (or a path to a .py file)"
        )
    return known[name]


def study_name(path: pathlib.PurePath) -> str:
    """The name under which a file's study is recorded."""
    return path.stem.replace("_", "-")


def most_steps(study: Study) -> int:
    """How many steps a trial can have at most: what tunes ``epochs`` goes before the study's."""
    tuned = [p for p in study.space.parameters if p.name == "epochs" and p.numeric]
    return max((int(p.high or 0) for p in tuned), default=study.epochs)


def digest_of(path: pathlib.Path) -> str:
    """The content hash that pins a study."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class StudyModule:
    """A person's file, imported; raises StudyError where it is not a study."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.digest = digest_of(path)
        self.module = _import(path)
        builds, evaluates = self._function("build_model"), self._function("evaluate")
        if bool(builds) == bool(evaluates):
            both = "both forms at once" if builds else "neither form of a study"
            raise StudyError(
                f"{path.name} has {both}: define build_model(hp) and load_data(), "
                "or else evaluate(hp, report)"
            )
        self.form = Form.KERAS if builds else Form.FUNCTION
        if builds and not self._function("load_data"):
            raise StudyError(f"{path.name} has build_model(hp) but no load_data(): define both")
        self.objective = self._constant("OBJECTIVE", str, DEFAULT_OBJECTIVE)
        self.direction = self._direction()
        self.epochs = self._constant("EPOCHS", int, DEFAULT_EPOCHS)
        self.batch_size = self._constant("BATCH_SIZE", int, DEFAULT_BATCH_SIZE)
        self.grid = self._grid()

    def build_model(self, hp: Any) -> Any:
        """The compiled model for ``hp``."""
        return self.module.build_model(hp)

    def evaluate(self, hp: Any, report: Callable[..., bool]) -> Any:
        """The metrics of the plain function for ``hp``."""
        return self.module.evaluate(hp, report)

    def load_data(self) -> Any:
        """Whatever the file's ``load_data`` answers."""
        return self.module.load_data()

    def callbacks(self, hp: Any) -> list[Any]:
        """Keras callbacks of the study's own."""
        own = self._function("callbacks")
        return list(own(hp)) if own else []

    @property
    def fit(self) -> Callable[..., Any] | None:
        """The study's own ``fit(hp, model, data, callbacks)``, if it has one."""
        return self._function("fit")

    def study(self, space: SearchSpace) -> Study:
        """This file's study as data, with the ``space`` read from it."""
        return Study(
            name=study_name(self.path),
            form=self.form,
            objective=self.objective,
            direction=self.direction,
            epochs=self.epochs,
            batch_size=self.batch_size,
            space=space,
            grid=self.grid,
            digest=self.digest,
        )

    def _function(self, name: str) -> Callable[..., Any] | None:
        found = getattr(self.module, name, None)
        if found is not None and not callable(found):
            raise StudyError(f"{self.path.name}: {name} is {found!r}: make it a function")
        return found

    def _constant(self, name: str, kind: type, default: Any) -> Any:
        value = getattr(self.module, name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise StudyError(f"{self.path.name}: {name} is {value!r}: give {kind.__name__}")
        if isinstance(value, int) and value < 1:
            raise StudyError(f"{self.path.name}: {name} is {value}: give at least 1")
        return value

    def _direction(self) -> Direction:
        declared = getattr(self.module, "DIRECTION", None)
        if declared is not None:
            if declared not in ("max", "min"):
                raise StudyError(f"{self.path.name}: DIRECTION is {declared!r}: 'max' or 'min'")
            return Direction(declared)
        direction = infer_direction(self.objective)
        if direction is None:
            raise StudyError(
                f"{self.path.name}: whether more of {self.objective!r} is better cannot be "
                "inferred: set DIRECTION = 'max' or 'min'"
            )
        return direction

    def _grid(self) -> dict[str, list[Value]]:
        grid = getattr(self.module, "GRID", {})
        if not isinstance(grid, dict) or not all(
            isinstance(levels, list | tuple) for levels in grid.values()
        ):
            raise StudyError(f"{self.path.name}: GRID is {grid!r}: give {{name: [levels]}}")
        return {str(name): list(levels) for name, levels in grid.items()}


def infer_direction(objective: str) -> Direction | None:
    """Which way a metric of this name is better; None where the name does not tell."""
    if _MINIMIZED.search(objective):
        return Direction.MIN
    return Direction.MAX if _MAXIMIZED.search(objective) else None


def metrics_of(values: Mapping[str, Any], where: str) -> dict[str, float]:
    """``values`` as plain floats; raises StudyError where one is not a number."""
    if not isinstance(values, Mapping):
        raise StudyError(f"{where} gave {values!r}: give a mapping from metric to number")
    metrics: dict[str, float] = {}
    for name, value in values.items():
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError):
            raise StudyError(f"{where} gave {name}={value!r}, which is not a number") from None
    return metrics


def _import(path: pathlib.Path) -> types.ModuleType:
    """Runs a file as a module; beside it lie the modules it may import, as for a script."""
    name = "tunefleet_study"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is not a Python file: give a path that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except TuneFleetError:
        raise
    except SyntaxError as error:
        line = f"{error.filename}:{error.lineno}"
        raise StudyError(f"{path.name} does not parse: {error.msg} ({line})") from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"{path.name} fails on import: {blame(error, path)}") from error
    return module


def blame(error: BaseException, path: pathlib.Path) -> str:
    """An error of the study's own code in one line, with the file's line that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename).name == path.name]
    where = f" ({path.name}:{lines[-1]})" if lines else ""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}{where}"
