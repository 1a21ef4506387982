"""Reading a table of learning curves, and refusing one that is not whole."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hpo.benchmark.table import CURVES, FORMAT, SPACE, VERSION, Floats, Table
from hpo.errors import DataError, SpaceError
from hpo.space import SearchSpace
from hpo.trial import Direction, Params


def read_table(folder: pathlib.Path) -> Table:
    """The table in ``folder``.

    Raises DataError, naming the file, the row, the seed and the step, for one that is not
    whole: another version, missing steps, a value that is no number, a configuration that
    lies outside the space or is there twice.
    """
    head = _read_description(folder / SPACE)
    arrays = _read_arrays(folder / CURVES)
    reading = _Reading(folder / CURVES, head, arrays)
    return reading.table()


def digest_of_table(folder: pathlib.Path) -> str:
    """A hash of the table's two files."""
    found = hashlib.sha256()
    for name in (SPACE, CURVES):
        found.update((folder / name).read_bytes())
    return found.hexdigest()


def _read_description(path: pathlib.Path) -> dict[str, Any]:
    try:
        head = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"no table in {path.parent}: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise DataError(f'{path} is no table: its "format" must be "{FORMAT}"')
    if head.get("version") != VERSION:
        raise DataError(
            f"{path} is of version {head.get('version')!r} and this program reads version "
            f"{VERSION}: write it anew with `launch.py record`, or as docs/tables.md says"
        )
    for name in ("name", "objective", "direction", "metrics", "steps", "seeds", "space"):
        if name not in head:
            raise DataError(f"{path} lacks {name!r}: see docs/tables.md")
    if head["direction"] not in list(Direction):
        raise DataError(f"{path}: direction is {head['direction']!r}: give 'max' or 'min'")
    if head["objective"] not in head["metrics"]:
        listed = ", ".join(map(str, head["metrics"]))
        raise DataError(f"{path}: objective {head['objective']!r} is none of the metrics: {listed}")
    return head


def _read_arrays(path: pathlib.Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    # What a damaged archive raises is of many kinds.
    except Exception as error:
        raise DataError(f"{path} is no npz archive of plain arrays: {error}") from error


class _Reading:
    """The arrays of a table on their way in, each checked against what ``space.json`` says."""

    def __init__(
        self, path: pathlib.Path, head: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        self._path, self._head, self._arrays = path, head, arrays

    def table(self) -> Table:
        head = self._head
        space = self._space()
        configurations = self._configurations(space)
        shape = (len(configurations), int(head["seeds"]), int(head["steps"]))
        metrics = self._array("metrics", (*shape, len(head["metrics"])))
        diverged = self._optional("diverged", shape[:2])
        lengths = self._optional("lengths", shape[:2])
        table = Table(
            name=str(head["name"]),
            space=space,
            objective=head["objective"],
            direction=Direction(head["direction"]),
            metric_names=tuple(head["metrics"]),
            configurations=configurations,
            metrics=metrics.astype(np.float64),
            lengths=(np.full(shape[:2], shape[2]) if lengths is None else lengths).astype(int),
            diverged=(np.zeros(shape[:2]) if diverged is None else diverged).astype(bool),
            seconds=self._numbers("seconds", shape),
            overhead=self._numbers("overhead", shape[:2]),
            grid=dict(head.get("grid", {})),
            source=dict(head.get("source", {})),
        )
        self._check_lengths(table)
        self._check_metrics(table)
        self._check_seconds(table)
        return table

    def _space(self) -> SearchSpace:
        try:
            return SearchSpace.from_json(self._head["space"])
        except SpaceError as error:
            raise DataError(f"the space of {self._path.with_name(SPACE)}: {error}") from error
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"the space of {self._path.with_name(SPACE)} is not as docs/tables.md says: "
                f"{error!r}"
            ) from error

    def _configurations(self, space: SearchSpace) -> tuple[Params, ...]:
        if "configurations" not in self._arrays:
            raise DataError(f"{self._path} lacks the array 'configurations': see docs/tables.md")
        found: dict[str, int] = {}
        points = []
        for row, text in enumerate(self._arrays["configurations"].ravel().tolist()):
            point = self._point(row, text, space)
            key = json.dumps(point)
            if key in found:
                raise self._wrong(row, f"is the configuration of row {found[key]} again: {key}")
            found[key] = row
            points.append(point)
        if not points:
            raise DataError(f"{self._path} has no configurations: a table has at least one")
        return tuple(points)

    def _point(self, row: int, text: Any, space: SearchSpace) -> Params:
        try:
            point = json.loads(text)
        except (TypeError, ValueError) as error:
            raise self._wrong(row, f"is not a JSON object of parameters: {text!r}") from error
        if not isinstance(point, dict):
            raise self._wrong(row, f"is not a JSON object of parameters: {text!r}")
        try:
            space.validate(point)
        except SpaceError as error:
            raise self._wrong(row, str(error)) from error
        return space.draw(lambda parameter: point[parameter.name])

    def _array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        found = self._arrays.get(name)
        if found is None:
            raise DataError(f"{self._path} lacks the array {name!r}: see docs/tables.md")
        if found.shape != shape:
            raise DataError(
                f"{self._path}: {name!r} has the shape {found.shape}, but {SPACE} and the "
                f"configurations make it {shape}"
            )
        if found.dtype.kind not in "fiub":
            raise DataError(f"{self._path}: {name!r} holds no numbers ({found.dtype})")
        return found

    def _optional(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any] | None:
        return self._array(name, shape) if name in self._arrays else None

    def _numbers(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        found = self._optional(name, shape)
        return None if found is None else found.astype(np.float64)

    def _check_lengths(self, table: Table) -> None:
        # A curve may have diverged at its very first step.
        least = np.where(table.diverged, 0, 1)
        most = np.where(table.diverged, table.steps - 1, table.steps)
        for row, seed in np.argwhere((table.lengths < least) | (table.lengths > most)):
            raise self._wrong(
                row,
                f"seed {seed} has {table.lengths[row, seed]} steps: a curve has from "
                f"{least[row, seed]} to {most[row, seed]}",
            )

    def _check_metrics(self, table: Table) -> None:
        inside = np.arange(table.steps) < table.lengths[..., None]
        bad = ~np.isfinite(table.metrics) & inside[..., None]
        for row, seed, place, metric in np.argwhere(bad):
            value = table.metrics[row, seed, place, metric]
            raise self._wrong(
                row,
                f"seed {seed}, step {place + 1} is missing: {table.metric_names[metric]} is "
                f"{value}; where a curve ends early, give 'lengths', and where it diverged, "
                "'diverged'",
            )

    def _check_seconds(self, table: Table) -> None:
        if table.seconds is not None:
            inside = np.arange(table.steps) < np.maximum(table.lengths, 1)[..., None]
            bad = inside & ~(np.isfinite(table.seconds) & (table.seconds > 0))
            for row, seed, place in np.argwhere(bad):
                value = table.seconds[row, seed, place]
                raise self._wrong(row, f"seed {seed}, step {place + 1} took {value} seconds")
        if table.overhead is not None:
            for row, seed in np.argwhere(~(np.isfinite(table.overhead) & (table.overhead >= 0))):
                value = table.overhead[row, seed]
                raise self._wrong(row, f"seed {seed} has an overhead of {value} seconds")

    def _wrong(self, row: int, what: str) -> DataError:
        return DataError(f"{self._path}, row {row}: {what}")
