"""Which trials end early: decided from what they and others have reported, step by step.

The definitions are Optuna's. A pruner is pure: it hears reports and ends, in whatever order
they come, and is rebuilt after a restart by hearing the ledger's again.
"""

from __future__ import annotations

import abc
import collections
import itertools
import math
import statistics
import zlib
from collections.abc import Iterator

from hpo.trial import Direction, TrialRecord, TrialState


class Pruner(abc.ABC):
    """Decides after each step whether a trial goes on.

    ``steps`` is the most steps (epochs) that a trial can have, as far as it is known
    beforehand, and ``seed`` the run's.
    """

    def __init__(self, direction: Direction, steps: int, seed: int) -> None:
        self.steps = steps
        self.seed = seed
        # So that less is always better.
        self._sign = -1.0 if direction is Direction.MAX else 1.0

    def reported(self, trial_id: str, step: int, value: float) -> None:
        """A trial's objective at a step; the same step again replaces it."""

    def ended(self, trial_id: str, state: TrialState) -> None:
        """A trial ended as ``state``."""

    @abc.abstractmethod
    def prunes(self, trial_id: str, step: int) -> bool:
        """Whether a trial that has just reported ``step`` is to end there."""

    def restore(self, record: TrialRecord, objective: str) -> None:
        """Hears all of an attempt again."""
        for report in record.history:
            if objective in report.metrics:
                self.reported(record.trial_id, report.step, report.metrics[objective])
        if record.state.ended:
            self.ended(record.trial_id, record.state)


class NoPruner(Pruner):
    """Lets every trial go on to its end."""

    def prunes(self, trial_id: str, step: int) -> bool:
        return False


class MedianPruner(Pruner):
    """Ends a trial whose best value so far is worse than the median of others at that step.

    Others are the completed trials; fewer than ``STARTUP`` are not enough to judge by.
    """

    STARTUP = 5

    def __init__(self, direction: Direction, steps: int, seed: int) -> None:
        super().__init__(direction, steps, seed)
        self._values: dict[str, dict[int, float]] = collections.defaultdict(dict)
        self._completed: set[str] = set()

    def reported(self, trial_id: str, step: int, value: float) -> None:
        self._values[trial_id][step] = self._sign * value

    def ended(self, trial_id: str, state: TrialState) -> None:
        if state is TrialState.COMPLETED:
            self._completed.add(trial_id)

    def prunes(self, trial_id: str, step: int) -> bool:
        if len(self._completed) < self.STARTUP:
            return False
        of_others = [self._values[other].get(step, math.nan) for other in self._completed]
        known = [value for value in of_others if not math.isnan(value)]
        return bool(known) and min(self._values[trial_id].values()) > statistics.median(known)


class AshaPruner(Pruner):
    """Asynchronous successive halving: at each rung the best third of those there goes on.

    Rungs are the steps ``FACTOR`` to the power of ``first``, ``first + 1`` and so on; a trial
    comes to one with its first step there or beyond. Whoever comes first to a rung goes on,
    since nobody is better; nobody waits.
    """

    FACTOR = 3

    def __init__(self, direction: Direction, steps: int, seed: int, first: int = 0) -> None:
        super().__init__(direction, steps, seed)
        self._first = first
        # By rung, the step with which each trial came there, and what it had reported.
        self._rungs: dict[int, dict[str, tuple[int, float]]] = collections.defaultdict(dict)

    def reported(self, trial_id: str, step: int, value: float) -> None:
        for rung in itertools.takewhile(lambda rung: self.FACTOR**rung <= step, self._numbers()):
            came = self._rungs[rung].get(trial_id)
            if came is None or came[0] == step:
                self._rungs[rung][trial_id] = (step, self._sign * value)
                if self._falls(trial_id, rung):
                    # It does not come to the next, even if its step lies beyond that.
                    return

    def prunes(self, trial_id: str, step: int) -> bool:
        rungs = itertools.takewhile(lambda rung: self.FACTOR**rung <= step, self._numbers())
        came = (rung for rung in rungs if self._rungs[rung].get(trial_id, (0, 0.0))[0] == step)
        return any(self._falls(trial_id, rung) for rung in came)

    def _numbers(self) -> Iterator[int]:
        return itertools.count(self._first)

    def _falls(self, trial_id: str, rung: int) -> bool:
        """Whether a trial is not among the best of those that came to ``rung``."""
        values = sorted(value for _, value in self._rungs[rung].values())
        going_on = max(len(values) // self.FACTOR, 1)
        return self._rungs[rung][trial_id][1] > values[going_on - 1]


class HyperbandPruner(Pruner):
    """Several :class:`AshaPruner` side by side, which differ in how early they begin.

    A trial belongs to one of these brackets by its id and the run's seed, in proportion to
    what the bracket costs; it is compared with the trials of its own bracket alone.
    """

    def __init__(self, direction: Direction, steps: int, seed: int) -> None:
        super().__init__(direction, steps, seed)
        factor = AshaPruner.FACTOR
        count = 1
        while factor**count <= steps:
            count += 1
        self._brackets = [AshaPruner(direction, steps, seed, first) for first in range(count)]
        # A bracket that begins later needs fewer trials for the same number of steps.
        self._shares = [
            math.ceil(count * factor ** (count - 1 - first) / (count - first))
            for first in range(count)
        ]

    def reported(self, trial_id: str, step: int, value: float) -> None:
        self._bracket(trial_id).reported(trial_id, step, value)

    def prunes(self, trial_id: str, step: int) -> bool:
        return self._bracket(trial_id).prunes(trial_id, step)

    def _bracket(self, trial_id: str) -> AshaPruner:
        place = zlib.crc32(f"{self.seed}:{trial_id}".encode()) % sum(self._shares)
        for bracket, share in zip(self._brackets, self._shares, strict=True):
            place -= share
            if place < 0:
                return bracket
        raise AssertionError("a place lies within the sum of the shares")
