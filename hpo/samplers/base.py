"""The interface of a sampler, and what it may answer."""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from hpo.packages import REMEDY, check_installed
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import Params, TrialRecord, TrialState

DEFAULT_TRIALS = 10


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point to try. ``tag`` is what the sampler must find again after a restart.

    ``epochs`` is the trial's own number of epochs, where it is not the study's, and
    ``resume_from`` a trial that has ended, from whose last epoch it goes on. ``note`` says
    what was done to the point on its way here; it stands in the record beside the sampler.
    """

    params: Params
    tag: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    resume_from: str | None = None
    note: str = ""


class Wait:
    """Nothing to try until some running trial has ended."""


class Exhausted:
    """Nothing is left to try."""


Answer = Proposal | Wait | Exhausted


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a point came out: ``steps`` are the objective at each step, ``value`` at the best."""

    params: Params
    state: TrialState
    value: float | None
    steps: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, record: TrialRecord, objective: str) -> Self:
        """What of a record counts for who learns from it."""
        steps = [(report.step, report.metrics.get(objective)) for report in record.history]
        known = tuple((step, value) for step, value in steps if value is not None)
        return cls(record.params, record.state, record.value, known)


class Sampler(abc.ABC):
    """Decides what to try next, for one run.

    A sampler is never pickled: after a restart a new one is made and told the ledger's
    records by :meth:`restore`, and then answers as the first would have. So its random
    numbers come from (seed, trial id) alone.
    """

    version: ClassVar[str] = "1"
    # Whether a search without a number of trials means all of them.
    exhaustive: ClassVar[bool] = False
    # Whether it says of each trial how long it trains, so that a pruner has no say.
    decides_epochs: ClassVar[bool] = False
    # Whether its points depend on no trial's result, so that they can be asked for ahead.
    ignores_results: ClassVar[bool] = False
    # Whether it goes on from points that it did not propose.
    takes_given: ClassVar[bool] = True
    # Packages that must be installed, and what puts those there that are no part of ours.
    requires: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str] = REMEDY

    def __init__(self, study: Study, seed: int) -> None:
        self.study = study
        self.space: SearchSpace = study.space
        self.seed = seed

    @classmethod
    def check_installed(cls) -> None:
        """Raises UsageError, saying what to do, where a package is missing."""
        check_installed("this sampler", cls.requires, cls.remedy)

    @classmethod
    def check(cls, study: Study) -> None:
        """Raises SpaceError, naming the parameter, where the space does not suit."""

    @classmethod
    def wanted(cls, study: Study, trials: int | None) -> int:
        """How many points a search of ``trials`` (None: not said) can and should try."""
        limit = cls.limit(study)
        if trials is None and (limit is None or not cls.exhaustive):
            trials = DEFAULT_TRIALS
        return min(n for n in (trials, limit) if n is not None)

    @classmethod
    def limit(cls, study: Study) -> int | None:
        """How many points there are at most; None where there is no end."""
        return study.space.size

    @property
    def model_based(self) -> bool:
        """Whether it learns from results. If it raises, a random point takes its place."""
        return False

    @property
    def thinks_elsewhere(self) -> bool:
        """Whether it computes in another process, so that waiting for that is what it costs."""
        return False

    @property
    def implementation(self) -> str:
        """What really decided, with its version, for the records."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__} {self.version}"

    @staticmethod
    def installed(name: str) -> str:
        """``name``, which begins with a package's, and the version of that."""
        return f"{name} {_version_of(name.partition('.')[0])}"

    @abc.abstractmethod
    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        """What to try as ``trial_id`` while ``pending`` trials have not ended."""

    def told(self, record: TrialRecord) -> None:
        """A trial of this run has ended as ``record``."""

    def asked(self, record: TrialRecord) -> None:
        """On a restart: ``record`` is what an earlier :meth:`ask` became."""

    def shuffle(self) -> None:
        """Before anything is asked: a sampler with an order of its own takes a random one."""

    @property
    def promotes(self) -> bool:
        """Whether trials go on from others that have ended, whose checkpoints are then kept."""
        return False

    def given(self, trial_id: str, params: Params) -> None:
        """A point that somebody else chose becomes a trial; its end is told as any other's."""

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        """The latest ask became ``params`` instead of what was ``proposed``, as where a table
        holds only some points. The trial's end is told of these.
        """
        self.given(trial_id, params)

    def learn(self, known: Sequence[Outcome]) -> None:
        """Before anything is asked: what became of points that another run tried.

        They are not tried again; one that learns from results takes these for its own.
        """
        for number, outcome in enumerate(known):
            self.given(f"known-{number}", outcome.params)

    def fall_back(self, trial_id: str, error: Exception) -> Answer:
        """A random point in place of the one that could not be proposed for ``error``."""
        params = self.at_random(random.Random(f"{self.seed}:{trial_id}:fall back"))
        if params is None:
            return Exhausted()
        self.given(trial_id, params)
        return Proposal(params, note=f"it failed ({error}), so this point is random")

    def at_random(self, rng: random.Random) -> Params | None:
        """A random point; None where there is none left."""
        return self.space.sample(rng)

    def restore(self, records: Iterable[TrialRecord]) -> None:
        """Replays the asks and the ends of ``records`` in the order in which they happened."""
        events = []
        for record in records:
            events.append((record.asked_seq, self.asked, record))
            if record.ended_seq is not None:
                events.append((record.ended_seq, self.told, record))
        for _, handle, record in sorted(events, key=lambda event: event[0]):
            handle(record)


def seed_of(seed: int, trial_id: str) -> int:
    """A trial's own seed, in [0, 2**31): it depends on the run's seed and the trial alone."""
    digest = hashlib.sha256(f"{seed}:{trial_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@functools.cache
def _version_of(package: str) -> str:
    # Here, since it loads what `launch.py --help` has no use for.
    import importlib.metadata

    return importlib.metadata.version(package)
