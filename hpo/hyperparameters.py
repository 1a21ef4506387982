"""KerasTuner's HyperParameters, with or without the package around it, and our space in it.

``import keras_tuner`` brings TensorFlow in (over 2 s and 600 MB). Its HyperParameters and
its messages need neither, so a process that trains no Keras model loads just those, from
the installed package's own files.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib
import importlib.util
import math
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.errors import PlaceError, SpaceError
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Value

_PACKAGE = "keras_tuner"
_CLASS_OF_KIND = {
    Kind.INT: "Int",
    Kind.FLOAT: "Float",
    Kind.CHOICE: "Choice",
    Kind.BOOLEAN: "Boolean",
    Kind.FIXED: "Fixed",
}
_KIND_OF_CLASS = {name: kind for kind, name in _CLASS_OF_KIND.items()}


def hyperparameters_class() -> Any:
    """KerasTuner's class ``HyperParameters``: the real one where the package is loaded.

    Otherwise the same class without the package, so that nothing imports TensorFlow. The
    two must not meet in one process, hence the look at what the study has imported.
    """
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE].HyperParameters
    return _bare_module("keras_tuner.src.engine.hyperparameters").HyperParameters


def messages() -> tuple[Any, Any, Any]:
    """KerasTuner's protobuf modules: messages, service messages, gRPC stubs and servicers."""
    protos = _bare_module("keras_tuner.src.protos")
    return protos.get_proto(), protos.get_service(), protos.get_service_grpc()


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
    if not all(math.isfinite(end) for end in (low, high)):
        raise SpaceError(f"{name!r} runs from {low} to {high}: give finite ends")
    if step is not None and step <= 0:
        raise SpaceError(f"{name!r} has step {step}: give a positive step")
    return Parameter(name, kind, config["default"], conditions, low, high, step, config["sampling"])


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


@functools.cache
def _bare_module(name: str) -> Any:
    """A module of KerasTuner, loaded without running its packages' ``__init__`` files."""
    if _PACKAGE in sys.modules:
        return importlib.import_module(name)
    with _bare_package():
        return importlib.import_module(name)


@contextlib.contextmanager
def _bare_package() -> Iterator[None]:
    """For a moment, empty packages stand where KerasTuner's own would be imported.

    They are gone afterwards, so that a person's own ``import keras_tuner`` still works.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise PlaceError("keras-tuner is not installed: pip install -r requirements.txt")
    root = pathlib.Path(spec.origin).parent
    stand_ins = {
        _PACKAGE: _package(_PACKAGE, root),
        "keras_tuner.src": _package("keras_tuner.src", root / "src"),
        "keras_tuner.src.engine": _package("keras_tuner.src.engine", root / "src" / "engine"),
        "keras_tuner.src.utils": _utils(),
        "keras_tuner.src.backend": types.ModuleType("keras_tuner.src.backend"),
    }
    stand_ins["keras_tuner.src.backend"].keras = None  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n == _PACKAGE or n.startswith(_PACKAGE + ".")]:
            del sys.modules[name]


def _package(name: str, folder: pathlib.Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    return module


def _utils() -> types.ModuleType:
    """The three helpers that HyperParameters uses, without the Keras behind them."""

    def serialize(obj: Any) -> dict[str, Any]:
        return {"class_name": type(obj).__name__, "config": obj.get_config()}

    def deserialize(config: Mapping[str, Any], module_objects: Mapping[str, Any]) -> Any:
        own_copy = copy.deepcopy(dict(config["config"]))
        return module_objects[config["class_name"]].from_config(own_copy)

    def to_list(values: Any) -> list[Any]:
        return list(values) if isinstance(values, list | tuple) else [values]

    module = types.ModuleType("keras_tuner.src.utils")
    vars(module).update(
        serialize_keras_object=serialize, deserialize_keras_object=deserialize, to_list=to_list
    )
    return module
