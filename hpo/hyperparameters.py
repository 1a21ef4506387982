"""Our space as KerasTuner's HyperParameters, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from hpo.errors import SpaceError
from hpo.keras_tuner_parts import hyperparameters_class
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Value

_CLASS_OF_KIND = {
    Kind.INT: "Int",
    Kind.FLOAT: "Float",
    Kind.CHOICE: "Choice",
    Kind.BOOLEAN: "Boolean",
    Kind.FIXED: "Fixed",
}
_KIND_OF_CLASS = {name: kind for kind, name in _CLASS_OF_KIND.items()}


def to_hyperparameters(space: SearchSpace, params: Mapping[str, Any]) -> Any:
    """KerasTuner's HyperParameters with this space and the values ``params``."""
    return hyperparameters_class().from_config(to_config(space, params))


def to_config(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    """What ``HyperParameters.get_config`` answers for this space and these values."""
    return {"space": [_parameter_config(p) for p in space.parameters], "values": dict(params)}


def from_hyperparameters(hp: Any) -> SearchSpace:
    """The space that KerasTuner's HyperParameters ``hp`` hold; their values are left out."""
    return from_config(hp.get_config())


def from_config(config: Mapping[str, Any]) -> SearchSpace:
    """The space in what ``HyperParameters.get_config`` answered."""
    return SearchSpace([_parameter(row["class_name"], row["config"]) for row in config["space"]])


def grid_levels(parameter: Parameter) -> list[Value]:
    """The values that KerasTuner's own grid search tries, in its order: the default first."""
    alone = SearchSpace([dataclasses.replace(parameter, conditions=())])
    (hp,) = hyperparameters_class().from_config(to_config(alone, {})).space
    return [hp.default, *hp.values]


def parameter_of(hp: Any) -> Parameter:
    """One of KerasTuner's hyperparameters, such as its ``Int``, as ours."""
    return _parameter(type(hp).__name__, hp.get_config())


def _parameter(class_name: str, config: Mapping[str, Any]) -> Parameter:
    kind = _KIND_OF_CLASS[class_name]
    conditions = tuple(
        Condition(c["config"]["name"], tuple(c["config"]["values"])) for c in config["conditions"]
    )
    name = config["name"]
    for value in (*config.get("values", ()), config.get("value"), config.get("default")):
        _check_number(name, value)
    if kind is Kind.FIXED:
        return Parameter(name, kind, config["value"], conditions)
    if kind is Kind.BOOLEAN:
        return Parameter(name, kind, config["default"], conditions)
    if kind is Kind.CHOICE:
        values = tuple(config["values"])
        return Parameter(
            name, kind, config["default"], conditions, values=values, ordered=config["ordered"]
        )
    low, high, step = config["min_value"], config["max_value"], config["step"]
    for end in (low, high):
        _check_number(name, end)
    if step is not None and step <= 0:
        raise SpaceError(f"{name!r} has step {step}: give a positive step")
    return Parameter(name, kind, config["default"], conditions, low, high, step, config["sampling"])


def _check_number(name: str, value: Any) -> None:
    """Raises SpaceError for a number that JSON, KerasTuner's messages or the ledger lack."""
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"{name!r} has {value} among its values: give finite numbers")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SpaceError(f"{name!r} has {value} among its values: give integers of 64 bits")


def _parameter_config(parameter: Parameter) -> dict[str, Any]:
    conditions = [
        {"class_name": "Parent", "config": {"name": c.name, "values": list(c.values)}}
        for c in parameter.conditions
    ]
    config: dict[str, Any] = {"name": parameter.name, "conditions": conditions}
    if parameter.kind is Kind.FIXED:
        config["value"] = parameter.default
    else:
        config["default"] = parameter.default
    if parameter.kind is Kind.CHOICE:
        config |= {"values": list(parameter.values), "ordered": parameter.ordered}
    if parameter.numeric:
        config |= {"min_value": parameter.low, "max_value": parameter.high}
        config |= {"step": parameter.step, "sampling": parameter.sampling}
    return {"class_name": _CLASS_OF_KIND[parameter.kind], "config": config}
