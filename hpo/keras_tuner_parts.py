"""Parts of the installed KerasTuner, read from its own files without the Keras behind it.

``import keras_tuner`` brings TensorFlow in: three seconds and 600 MB. Its HyperParameters, its
messages and its oracles need nothing of it, so a process that trains no Keras model loads just
those.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.errors import PlaceError

_PACKAGE = "keras_tuner"
_ORACLES = {
    "RandomSearchOracle": "randomsearch",
    "GridSearchOracle": "gridsearch",
    "BayesianOptimizationOracle": "bayesian",
    "HyperbandOracle": "hyperband",
}
# What was loaded so far: a class must not be there twice.
_loaded: dict[str, types.ModuleType] = {}


def hyperparameters_class() -> Any:
    """KerasTuner's class ``HyperParameters``: the real one where the package is loaded.

    Otherwise the same class without the package, so that nothing imports TensorFlow. The
    two must not meet in one process, hence the look at what the study has imported.
    """
    return _module("engine.hyperparameters").HyperParameters


def messages() -> tuple[Any, Any, Any]:
    """KerasTuner's protobuf modules: messages, service messages, gRPC stubs and servicers."""
    protos = _module("protos")
    return protos.get_proto(), protos.get_service(), protos.get_service_grpc()


def oracle_class(name: str) -> Any:
    """The class ``name`` of ``keras_tuner.oracles``."""
    return getattr(_module(f"tuners.{_ORACLES[name]}"), name)


def objective_class() -> Any:
    """KerasTuner's class ``Objective``."""
    return _module("engine.objective").Objective


def trial_class() -> Any:
    """KerasTuner's class ``Trial``."""
    return _module("engine.trial").Trial


def _module(name: str) -> Any:
    """A module of KerasTuner: the package's where that is loaded, else one of its own."""
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.src.{name}")
    return _bare_module(f"{_PACKAGE}.src.{name}")


@functools.cache
def _bare_module(name: str) -> Any:
    """A module of KerasTuner, loaded without running its packages' ``__init__`` files."""
    with _bare_package():
        return importlib.import_module(name)


@contextlib.contextmanager
def _bare_package() -> Iterator[None]:
    """For a moment, empty packages stand where KerasTuner's own would be imported.

    They are gone afterwards, so that a person's own ``import keras_tuner`` still works.
    """
    sys.modules.update(_loaded or _stand_ins())
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n == _PACKAGE or n.startswith(_PACKAGE + ".")]:
            _loaded[name] = sys.modules.pop(name)


def _stand_ins() -> dict[str, types.ModuleType]:
    """Its packages without what they import, and what of Keras its modules ask for by name."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise PlaceError("keras-tuner is not installed: pip install -r requirements.txt")
    root = pathlib.Path(spec.origin).parent
    packages = {
        _PACKAGE: root,
        f"{_PACKAGE}.src": root / "src",
        f"{_PACKAGE}.src.engine": root / "src" / "engine",
        f"{_PACKAGE}.src.tuners": root / "src" / "tuners",
    }
    modules = {
        f"{_PACKAGE}.src.utils": _helpers(),
        f"{_PACKAGE}.src.backend": {"keras": None},
        # What a tuner's class comes from, beside the oracle of the same file.
        f"{_PACKAGE}.src.engine.tuner": {"Tuner": object},
    }
    return {
        **{name: _package(name, folder) for name, folder in packages.items()},
        **{name: _filled(name, content) for name, content in modules.items()},
    }


def _package(name: str, folder: pathlib.Path) -> types.ModuleType:
    return _filled(name, {"__path__": [str(folder)]})


def _filled(name: str, content: Mapping[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    return module


def _helpers() -> dict[str, Any]:
    """Of KerasTuner's helpers the three that are needed here, without the Keras behind them."""

    def serialize(obj: Any) -> dict[str, Any]:
        return {"class_name": type(obj).__name__, "config": obj.get_config()}

    def deserialize(config: Mapping[str, Any], module_objects: Mapping[str, Any]) -> Any:
        own_copy = copy.deepcopy(dict(config["config"]))
        return module_objects[config["class_name"]].from_config(own_copy)

    def to_list(values: Any) -> list[Any]:
        return list(values) if isinstance(values, list | tuple) else [values]

    return {
        "serialize_keras_object": serialize,
        "deserialize_keras_object": deserialize,
        "to_list": to_list,
    }
