"""What is to be known of a study before anything is rented for it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from hpo.engines.base import check_supported, load_engine
from hpo.errors import UsageError
from hpo.parameter import Parameter
from hpo.registry import ENGINES, PRUNERS, SAMPLERS
from hpo.study import Form, Study

if TYPE_CHECKING:
    from hpo.probe import Reading


def checkup(reading: Reading, path: pathlib.Path) -> dict[str, Any]:
    """The object that ``check --json`` prints; see docs/check.md."""
    study = reading.study
    space = study.space
    endless = _without_levels(study)
    # A plain function counts its own steps.
    fitted = study.form == Form.KERAS
    return {
        "study": study.name,
        "file": str(path),
        "digest": study.digest,
        "form": study.form,
        "objective": study.objective,
        "direction": study.direction.value,
        "epochs": study.epochs if fitted else None,
        "batch_size": study.batch_size if fitted else None,
        "space": [_parameter(study, parameter) for parameter in space.parameters],
        "grid": {
            "points": None if endless else space.grid(study.grid).size,
            "without_levels": endless,
        },
        "inactive": [p.name for p in space.parameters if p not in space.reachable],
        "warnings": reading.warnings,
        "supported": supported(),
    }


def supported() -> dict[str, dict[str, list[str]]]:
    """The pruners that go with each sampler of each engine, by the rule that `run` applies."""
    return {
        engine: {
            sampler: [pruner for pruner in PRUNERS if _is_supported(engine, sampler, pruner)]
            for sampler in SAMPLERS
        }
        for engine in ENGINES
    }


def _is_supported(engine: str, sampler: str, pruner: str) -> bool:
    try:
        check_supported(load_engine(engine), sampler, pruner)
    except UsageError:
        return False
    return True


def _without_levels(study: Study) -> list[str]:
    endless = (p.name for p in study.space.reachable if _levels(study, p) is None)
    return list(dict.fromkeys(endless))


def _levels(study: Study, parameter: Parameter) -> int | None:
    """How many values a grid takes of ``parameter``."""
    given = study.grid.get(parameter.name)
    return parameter.count if given is None else len(set(given))


def _parameter(study: Study, parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "kind": parameter.kind.value,
        "values": parameter.describe(),
        "conditions": [{"name": c.name, "values": list(c.values)} for c in parameter.conditions],
        "default": parameter.initial,
        "levels": _levels(study, parameter),
    }
