"""What all samplers of Optuna's have in common: how they are asked and told.

A new Optuna sampler is made at each ask, seeded by (seed, trial id), and shown a study in
memory that holds what the records say. So whatever was killed in between, the same is
proposed; there is no Optuna storage, no heartbeat and nothing pickled.
"""

from __future__ import annotations

import abc
import functools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hpo.samplers.base import Answer, Exhausted, Outcome, Proposal, Sampler, seed_of
from hpo.study import Study
from hpo.trial import Params, TrialRecord
from hpo.untried import Untried

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from hpo.samplers.optuna.book import Book

# So often it is asked again that proposes what was tried.
_ASKS = 5
_STARTUP = 10


class OptunaSampler(Sampler):
    """One of Optuna's samplers, by the name of its class in ``optuna.samplers``."""

    requires: ClassVar[tuple[str, ...]] = ("optuna",)

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._untried = Untried(study.space)

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The class that draws."""

    @abc.abstractmethod
    def made(self, seed: int) -> BaseSampler:
        """A new one, whose random numbers come from ``seed``."""

    @property
    def implementation(self) -> str:
        """Optuna's class, with the version that is installed."""
        return self.installed(f"optuna.samplers.{self.name}")

    @property
    def model_based(self) -> bool:
        return True

    @property
    def startup(self) -> int:
        """How many trials must have ended before a model decides.

        Ten, as Optuna has it, but no fewer than run now: one result from every worker of a
        large fleet, instead of a model of ten points that decides on all of its trials.
        """
        return max(_STARTUP, self._book.running)

    @functools.cached_property
    def _book(self) -> Book:
        # Here, so that a chief with another sampler never imports Optuna.
        from hpo.samplers.optuna.book import Book

        return Book(self.space, self.study.direction)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._untried.none_left:
            return Exhausted()
        for number in range(_ASKS):
            draft = self._book.draft(self.made(seed_of(self.seed, f"{trial_id}/{number}")))
            if draft.params in self._untried:
                self._begin(trial_id, draft.params, self.kept(draft.attrs))
                return Proposal(draft.params, tag=self.tag_of(draft.number))
        params = self.at_random(random.Random(f"{self.seed}:{trial_id}"))
        if params is None:
            return Exhausted()
        self.given(trial_id, params)
        return Proposal(params, note=f"{_ASKS} proposals were tried before, so this one is random")

    def told(self, record: TrialRecord) -> None:
        self._book.end(record.trial_id, Outcome.of(record, self.study.objective))

    def asked(self, record: TrialRecord) -> None:
        attrs = self.noted_at(record) if record.tag else {}
        self._begin(record.trial_id, record.params, attrs)

    def given(self, trial_id: str, params: Params) -> None:
        self._begin(trial_id, params, {})

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        self._untried.free(proposed)
        self._untried.use(params)
        self._book.move(trial_id, params)

    def learn(self, known: Sequence[Outcome]) -> None:
        for number, outcome in enumerate(known):
            self.given(f"known-{number}", outcome.params)
            self._book.end(f"known-{number}", outcome)

    def at_random(self, rng: random.Random) -> Params | None:
        return self._untried.draw(rng)

    def kept(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What must stay of the notes that Optuna's sampler made at a point it drew."""
        return {}

    def tag_of(self, number: int) -> dict[str, Any]:
        """What :meth:`noted_at` must know of a proposal that was Optuna's trial ``number``."""
        return {}

    def noted_at(self, record: TrialRecord) -> dict[str, Any]:
        """On a restart: the notes that were kept when ``record`` was asked for."""
        return {}

    def _begin(self, trial_id: str, params: Params, attrs: dict[str, Any]) -> None:
        self._untried.use(params)
        self._book.begin(trial_id, params, attrs)
