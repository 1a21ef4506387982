"""Points that a person gave are tried first; then the sampler goes on, knowing of them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from hpo.errors import SpaceError, UsageError
from hpo.parameter import Kind, Parameter
from hpo.samplers.base import Answer, Proposal, Sampler
from hpo.space import SearchSpace
from hpo.trial import Params, TrialRecord, Value

_NOTE = "a given starting point"


class StartingPoints(Sampler):
    """Proposes ``points`` in their order, then whatever ``sampler`` does.

    Wraps any sampler that does not insist on points of its own (``takes_given``).
    """

    def __init__(self, sampler: Sampler, points: Sequence[Params]) -> None:
        super().__init__(sampler.study, sampler.seed)
        self._sampler = sampler
        self._points = points
        self._next = 0

    @property
    def implementation(self) -> str:
        """That of the sampler that goes on."""
        return self._sampler.implementation

    @property
    def model_based(self) -> bool:
        return self._sampler.model_based

    @property
    def thinks_elsewhere(self) -> bool:
        return self._sampler.thinks_elsewhere

    @property
    def promotes(self) -> bool:
        return self._sampler.promotes

    def fall_back(self, trial_id: str, error: Exception) -> Answer:
        return self._sampler.fall_back(trial_id, error)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._next >= len(self._points):
            return self._sampler.ask(trial_id, pending)
        point = self._points[self._next]
        self._next += 1
        self._sampler.given(trial_id, point)
        return Proposal(point, tag={"start": self._next}, note=_NOTE)

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        self._sampler.moved(trial_id, proposed, params)

    def told(self, record: TrialRecord) -> None:
        self._sampler.told(record)

    def asked(self, record: TrialRecord) -> None:
        if "start" in record.tag:
            self._next = int(record.tag["start"])
            self._sampler.given(record.trial_id, record.params)
        else:
            self._sampler.asked(record)


def read_points(path: pathlib.Path) -> list[Params]:
    """The points in a JSON file, each once: one, or a list; or what `best --json` printed.

    Raises UsageError for a file that cannot be read or holds anything else.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read --start {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--start {path} is not JSON: {error}") from error
    points = [_point_in(row) for row in (found if isinstance(found, list) else [found])]
    if not points or not all(isinstance(point, dict) for point in points):
        raise UsageError(f'--start {path}: give a list of points such as [{{"units": 64}}]')
    return [point for place, point in enumerate(points) if point not in points[:place]]


def in_space(path: pathlib.Path, points: Sequence[Params], space: SearchSpace) -> list[Params]:
    """The points as ``space`` orders and types them.

    Raises SpaceError, naming the point and the parameter, unless all lie in it.
    """
    ordered = []
    for number, point in enumerate(points, start=1):
        try:
            space.validate(point)
        except SpaceError as error:
            raise SpaceError(f"--start {path}, point {number}: {error}") from error
        ordered.append(space.draw(lambda parameter, point=point: _typed(parameter, point)))  # type: ignore[misc]
    return ordered


def _typed(parameter: Parameter, point: Params) -> Value:
    """The value of ``parameter``; JSON may have a whole number for a float."""
    value = point[parameter.name]
    return float(value) if parameter.kind is Kind.FLOAT else value


def _point_in(row: Any) -> Any:
    is_record = isinstance(row, dict) and isinstance(row.get("params"), dict)
    return row["params"] if is_record else row
