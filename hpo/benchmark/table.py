"""A table of learning curves: what each configuration did, with each seed, at each step.

The format is described in docs/tables.md: a folder with ``space.json`` and ``curves.npz``.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hpo.errors import DataError, PlaceError
from hpo.samplers.base import seed_of
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.trial import Direction, Metrics, Params, Value

FORMAT, VERSION = "tunefleet-table", 1
SPACE, CURVES = "space.json", "curves.npz"

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a curve: its number from 1, what was reported, and the seconds it took."""

    number: int
    metrics: Metrics
    seconds: float


@dataclasses.dataclass(frozen=True)
class Table:
    """Curves of ``configurations``, which lie in ``space`` and are all different.

    ``metrics`` has the shape (rows, seeds, steps, names) and holds ``metric_names``;
    ``lengths`` (rows, seeds) is how many steps of each curve there are, the rest is not read.
    Where ``diverged`` (rows, seeds), the step after the last one gave an objective that is
    not finite. ``seconds`` (rows, seeds, steps) are those of each step, on one worker, and
    ``overhead`` (rows, seeds) those that a trial took besides; None where nobody knows.
    ``source`` says how the table came about.
    """

    name: str
    space: SearchSpace
    objective: str
    direction: Direction
    metric_names: tuple[str, ...]
    configurations: tuple[Params, ...]
    metrics: Floats
    lengths: npt.NDArray[np.int64]
    diverged: npt.NDArray[np.bool_]
    seconds: Floats | None = None
    overhead: Floats | None = None
    grid: dict[str, list[Value]] = dataclasses.field(default_factory=dict)
    source: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many configurations there are."""
        return len(self.configurations)

    @property
    def seeds(self) -> int:
        """How many curves each configuration has."""
        return int(self.metrics.shape[1])

    @property
    def steps(self) -> int:
        """How many steps the longest curves have."""
        return int(self.metrics.shape[2])

    def study(self) -> Study:
        """The search of this table, as samplers and pruners see it."""
        return Study(
            name=self.name,
            form=Form.FUNCTION,
            objective=self.objective,
            direction=self.direction,
            epochs=self.steps,
            batch_size=1,
            space=self.space,
            grid=self.grid,
            digest=self.space.digest(),
        )

    def curve(self, row: int, seed: int) -> Iterator[Step]:
        """The steps of one curve; where it diverged the last one's objective is NaN.

        A table without seconds counts each step as one.
        """
        length = int(self.lengths[row, seed])
        for place in range(length + bool(self.diverged[row, seed])):
            values = self.metrics[row, seed, place].tolist() if place < length else []
            metrics = dict(zip(self.metric_names, values, strict=bool(values)))
            # A diverged curve's last step is as long as the one before.
            timed = min(place, max(length - 1, 0))
            seconds = 1.0 if self.seconds is None else float(self.seconds[row, seed, timed])
            yield Step(place + 1, metrics or {self.objective: float("nan")}, seconds)

    def values(self) -> Floats:
        """The objective at each curve's best step (rows, seeds); NaN where it diverged."""
        column = self.metrics[..., self.metric_names.index(self.objective)]
        beyond = np.arange(self.steps) >= self.lengths[..., None]
        worst = -np.inf if self.direction is Direction.MAX else np.inf
        inside = np.where(beyond, worst, column)
        best = inside.max(axis=2) if self.direction is Direction.MAX else inside.min(axis=2)
        return np.where(self.diverged, np.nan, best)

    def drawn(self, seed: int) -> npt.NDArray[np.int64]:
        """Which of its curves each configuration has in a search of this ``seed`` (rows).

        Every sampler meets the same one, so that searches of one seed are pairs.
        """
        draws = np.random.default_rng(seed_of(seed, "curves"))
        return draws.integers(0, self.seeds, size=self.rows)

    def write(self, folder: pathlib.Path) -> None:
        """Writes the table as ``folder``, whole or not at all; DataError if that is there."""
        if folder.exists():
            raise DataError(f"{folder} is there already: give another --out, or remove it")
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            draft.mkdir(parents=True)
            (draft / SPACE).write_text(json.dumps(self._description(), indent=1) + "\n")
            np.savez_compressed(draft / CURVES, **self._arrays())  # type: ignore[arg-type]
            draft.rename(folder)
        except OSError as error:
            raise PlaceError(f"cannot write the table {folder}: {error.strerror}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "objective": self.objective,
            "direction": self.direction.value,
            "metrics": list(self.metric_names),
            "steps": self.steps,
            "seeds": self.seeds,
            "space": self.space.to_json(),
            "grid": self.grid,
            "source": self.source,
        }

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "configurations": np.array([json.dumps(point) for point in self.configurations]),
            "metrics": self.metrics,
            "lengths": self.lengths,
            "diverged": self.diverged,
        }
        optional = {"seconds": self.seconds, "overhead": self.overhead}
        return arrays | {name: array for name, array in optional.items() if array is not None}
