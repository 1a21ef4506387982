"""Reads a study in a process of its own: its space, and whether it can be trained at all.

The process may import TensorFlow, run a model's operations and be ended; whoever asks stays
light, and a fork server that starts later stays free of operations.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self

from hpo import child
from hpo.discovery import discover
from hpo.errors import SpaceError, StudyError, TuneFleetError
from hpo.hyperparameters import to_hyperparameters
from hpo.space import SearchSpace
from hpo.study import Form, Study, StudyModule, blame
from hpo.told import checked
from hpo.trial import Metrics


@dataclasses.dataclass(frozen=True)
class Reading:
    """A study that can be searched, and ``warnings`` of what will probably go wrong in it."""

    study: Study
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON; :meth:`from_json` gives an equal one back."""
        return {"study": self.study.to_json(), "warnings": self.warnings}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """A reading from what :meth:`to_json` gave."""
        return cls(Study.from_json(row["study"]), row["warnings"])


def read_study(path: pathlib.Path, environ: Mapping[str, str], debug: bool = False) -> Reading:
    """The study in the file ``path``, read by a child process.

    Raises StudyError or SpaceError for what is wrong with the file, DataError for its data.
    """
    return Reading.from_json(child.ask("hpo.probe", [str(path)], environ, debug))


def question(module: StudyModule) -> dict[str, Any]:
    """The reading of ``module``, in this process, as JSON; raises what is wrong with it."""
    return _probe(module).to_json()


def _probe(module: StudyModule) -> Reading:
    path, reported = module.path, set[str]()
    if module.form == Form.FUNCTION:
        space = discover(lambda hp: _until_first_report(module, hp, reported))
    else:
        space = discover(lambda hp: _build(module, hp))
    if not space.tunable:
        raise SpaceError(
            f"{path.name} declares no hyperparameter to tune: use hp.Int, hp.Float, hp.Choice "
            "or hp.Boolean"
        )
    study = module.study(space)
    space.grid({name: study.grid[name] for name in study.grid} | _any_level(space, study))
    if module.form == Form.KERAS:
        _check_one_batch(module, space)
        return Reading(study, [])
    return Reading(study, _doubts(module, reported))


def _doubts(module: StudyModule, reported: set[str]) -> list[str]:
    """No reason to refuse: the objective may come in a later report, or be returned."""
    if module.objective in reported:
        return []
    names = ", ".join(sorted(reported)) or "no metric"
    return [
        f"{module.path.name}: the first report of evaluate(hp, report) gives {names} and not the "
        f"objective {module.objective!r}: unless a later report or what it returns has that, every "
        "trial fails: report it, or set OBJECTIVE"
    ]


class _FirstReport(BaseException):
    """Ends ``evaluate`` at its first report, past a person's own ``except Exception``."""


def _until_first_report(module: StudyModule, hp: Any, reported: set[str]) -> None:
    """Calls ``evaluate`` up to its first report, whose metrics' names go to ``reported``."""

    def report(step: int, metrics: Metrics) -> NoReturn:
        reported.update(checked(step, metrics).metrics)
        raise _FirstReport

    try:
        module.evaluate(hp, report)
    except _FirstReport:
        return
    except TuneFleetError:
        raise
    except Exception as error:
        raise StudyError(
            f"evaluate(hp, report) of {module.path.name} fails before its first report: "
            f"{blame(error, module.path)}"
        ) from error
    raise StudyError(
        f"evaluate(hp, report) of {module.path.name} ended without a report: "
        "call report(1, metrics) at least once"
    )


def _build(module: StudyModule, hp: Any) -> None:
    import keras

    from hpo.runner import check_compiled

    model = _of_study(module, "build_model(hp)", lambda: module.build_model(hp))
    check_compiled(model, module)
    keras.backend.clear_session()


def _check_one_batch(module: StudyModule, space: SearchSpace) -> None:
    """Raises StudyError unless the model takes the data and reports the objective."""
    from hpo.runner import inputs_of

    params = space.defaults()
    data = _of_study(module, "load_data()", lambda: inputs_of(module, params))
    if module.fit:
        # Its own loop decides what is reported, which only a trial can show.
        return
    hp = to_hyperparameters(space, params)
    model = _of_study(module, "build_model(hp)", lambda: module.build_model(hp))

    def one_batch() -> Any:
        x, y = next(iter(data.validation))
        # Two examples are not worth a graph.
        model.run_eagerly = True
        return model.test_on_batch(x[:2], y[:2], return_dict=True)

    metrics = _of_study(module, "a first batch", one_batch)
    reported = [*metrics, *(f"val_{name}" for name in metrics)]
    if module.objective not in reported:
        raise StudyError(
            f"{module.path.name}: the objective {module.objective!r} is not among the model's "
            f"metrics ({', '.join(reported)}): add it to compile(metrics=...), or set OBJECTIVE"
        )


def _of_study(module: StudyModule, what: str, call: Callable[[], Any]) -> Any:
    """``call()``, whose errors are the study's own."""
    try:
        return call()
    except TuneFleetError:
        raise
    except Exception as error:
        raise StudyError(
            f"{what} of {module.path.name} fails: {blame(error, module.path)}"
        ) from error


def _any_level(space: SearchSpace, study: Study) -> dict[str, list[Any]]:
    """Levels that let GRID itself be checked where a float has none."""
    return {
        p.name: [p.initial]
        for p in space.parameters
        if p.count is None and p.name not in study.grid
    }


if __name__ == "__main__":
    child.answer(sys.argv[1], lambda: question(StudyModule(pathlib.Path(sys.argv[2]))))
