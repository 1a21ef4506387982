"""What the columns of HParams' table are: hyperparameters and metrics, with their domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hpo.parameter import Parameter
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.tensorboard.files import package
from hpo.trial import Params, Value

MAX_METRICS = 5

_BOOL, _NUMBER, _STRING = "DATA_TYPE_BOOL", "DATA_TYPE_FLOAT64", "DATA_TYPE_STRING"
_TYPES = {bool: _BOOL, int: _NUMBER, float: _NUMBER, str: _STRING}


def experiment(study: Study) -> Any:
    """The record of a study's columns, TensorBoard's `Experiment`: the same for every call."""
    api = package("plugins.hparams.api_pb2")
    return api.Experiment(
        name=study.name,
        description=f"objective: {study.objective} ({study.direction})",
        hparam_infos=[info for column in columns(study.space) for info in column.infos()],
        metric_infos=[api.MetricInfo(name=api.MetricName(tag=tag)) for tag in _metrics(study)],
    )


class Column:
    """A hyperparameter in the table: every declaration of its name, whatever the conditions."""

    def __init__(self, declarations: Sequence[Parameter]) -> None:
        self.name = declarations[0].name
        self._declared = [value for p in declarations for value in _ends_or_levels(p)]
        types = {_TYPES[type(value)] for value in self._declared}
        self._type = types.pop() if len(types) == 1 else _STRING
        self._ranges = any(p.numeric for p in declarations)
        # HParams has no flag for a logarithmic axis.
        self._logarithm = (
            self._type == _NUMBER
            and any(p.sampling != "linear" for p in declarations)
            and all(float(value) > 0 for value in self._declared)
        )

    def cells(self, value: Value) -> Params:
        """What a row shows of ``value``, by the name of the column."""
        # One string in a column of numbers would be shown as no number at all.
        row = {self.name: str(value) if self._type == _STRING else value}
        return row | ({f"log10({self.name})": math.log10(float(value))} if self._logarithm else {})

    def infos(self) -> list[Any]:
        """The declaration of the column and, if there is one, of its logarithm."""
        rows = [self.cells(value) for value in self._declared]
        return [self._info(name, [row[name] for row in rows]) for name in rows[0]]

    def _info(self, name: str, values: list[Value]) -> Any:
        info = package("plugins.hparams.api_pb2").HParamInfo(name=name, type=self._type)
        # The page puts columns that differ first and shows five: a logarithm would take the
        # place of another hyperparameter.
        info.differs = name == self.name and len(set(values)) > 1
        if self._ranges and self._type == _NUMBER:
            info.domain_interval.min_value = min(map(float, values))
            info.domain_interval.max_value = max(map(float, values))
        elif not self._ranges:
            info.domain_discrete.extend(dict.fromkeys(values))
        return info


def columns(space: SearchSpace) -> list[Column]:
    """A column a name; none for a constant, which tells no two rows apart."""
    by_name: dict[str, list[Parameter]] = {}
    for parameter in space.parameters:
        by_name.setdefault(parameter.name, []).append(parameter)
    tunable = {parameter.name for parameter in space.tunable}
    return [Column(found) for name, found in by_name.items() if name in tunable]


def _ends_or_levels(parameter: Parameter) -> list[Value]:
    if parameter.low is not None and parameter.high is not None:
        return [parameter.low, parameter.high]
    return list(parameter.levels())


def _metrics(study: Study) -> list[str]:
    """The columns of metrics, a trial's value first; more of them are what makes a page slow."""
    names = [best_tag(study), study.objective]
    if study.form == Form.KERAS:
        names += ["val_loss", "loss", study.objective.removeprefix("val_")]
    return list(dict.fromkeys(names))[:MAX_METRICS]


def best_tag(study: Study) -> str:
    """The metric that is a trial's value: its best epoch's objective so far."""
    return f"best_{study.objective}"
