"""KerasTuner's own oracles as samplers: what was published with them can be run as it was.

They run in a child, where their Gaussian process holds up nobody; see ``process``.
What they decide depends on the run's seed, the trial and the records alone, so a new child,
told the records again, goes on as the one before would have.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from hpo.errors import PlaceError, SpaceError
from hpo.hyperparameters import grid_levels
from hpo.samplers.base import Answer, Exhausted, Outcome, Proposal, Sampler, Wait
from hpo.samplers.keras_tuner.process import OracleProcess, OracleProcessDiedError
from hpo.study import Study
from hpo.trial import Params, TrialRecord

log = logging.getLogger("tunefleet.sampler")

_CHILDREN = 3
_sessions = itertools.count()


class KerasTunerSampler(Sampler):
    """One of KerasTuner's oracles, the class ``oracle`` of ``keras_tuner.oracles``."""

    oracle: ClassVar[str]

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._session = next(_sessions)
        self._process: OracleProcess | None = None
        # All that an oracle must know; a new child is told from the first one on.
        self._events: list[dict[str, Any]] = []
        self._sent = 0
        # Started here, so that it imports while the chief begins to serve.
        OracleProcess.shared()

    @property
    def thinks_elsewhere(self) -> bool:
        return True

    @property
    def implementation(self) -> str:
        """KerasTuner's class, with the version that is installed."""
        return self.installed(f"keras_tuner.oracles.{self.oracle}")

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        for _ in range(_CHILDREN):
            try:
                return self._ask(trial_id)
            except OracleProcessDiedError as error:
                log.warning("%s; told the records anew", error)
        raise PlaceError(
            f"the process of KerasTuner's oracles died {_CHILDREN} times at trial {trial_id}: "
            "look for too little memory, and see the chief's log"
        )

    def asked(self, record: TrialRecord) -> None:
        self._note(record.trial_id, params=record.params, tag=record.tag)

    def told(self, record: TrialRecord) -> None:
        self._note(record.trial_id, state=record.state.value, value=record.value)

    def given(self, trial_id: str, params: Params) -> None:
        self._note(trial_id, params=params, tag={})

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        self._note(trial_id, moved=params)

    def learn(self, known: Sequence[Outcome]) -> None:
        for number, outcome in enumerate(known):
            trial_id = f"known-{number}"
            self._note(trial_id, params=outcome.params, tag={})
            self._note(trial_id, state=outcome.state.value, value=outcome.value)

    def _note(self, trial_id: str, **event: Any) -> None:
        self._events.append({"trial_id": trial_id, **event})

    def _ask(self, trial_id: str) -> Answer:
        process = OracleProcess.shared()
        if process is not self._process:
            study = self.study.to_json()
            process.open(self._session, oracle=self.oracle, study=study, seed=self.seed, owner=self)
            self._process, self._sent = process, 0
        answer = process.ask(self._session, trial_id, self._events[self._sent :])
        self._sent = len(self._events)
        if answer["kind"] == "wait":
            return Wait()
        if answer["kind"] == "exhausted":
            return Exhausted()
        self._note(trial_id, params=answer["params"], tag=answer["tag"])
        # It knows of what it proposed itself.
        self._sent += 1
        return Proposal(
            answer["params"],
            tag=answer["tag"],
            epochs=answer["epochs"],
            resume_from=answer["tag"].get("promoted"),
            note=answer["note"],
        )


class KtRandom(KerasTunerSampler):
    """KerasTuner's RandomSearchOracle: it gives up after 20 points in a row that were tried."""

    oracle = "RandomSearchOracle"


class _OneNameEach(KerasTunerSampler):
    """Those that keep a trial's values by name, and lose one that two branches declare."""

    @classmethod
    def check(cls, study: Study) -> None:
        names = [parameter.name for parameter in study.space.parameters]
        for name in names:
            if names.count(name) > 1:
                raise SpaceError(
                    f"{name!r} is declared under more than one condition, and KerasTuner's "
                    f"{cls.oracle} would lose its value: give each declaration a name of its "
                    "own, or take another sampler"
                )


class KtBayesian(_OneNameEach):
    """KerasTuner's BayesianOptimizationOracle, a Gaussian process.

    Until three times as many trials have completed as the space has parameters, its points
    are random.
    """

    oracle = "BayesianOptimizationOracle"

    @property
    def model_based(self) -> bool:
        return True


class KtGrid(_OneNameEach):
    """KerasTuner's GridSearchOracle.

    The default of each parameter comes first. Of a parameter without a step it takes ten
    values and the default.
    """

    oracle = "GridSearchOracle"
    exhaustive = True
    takes_given = False

    @classmethod
    def check(cls, study: Study) -> None:
        super().check(study)
        for parameter in study.space.parameters:
            if len(set(parameter.values)) < len(parameter.values):
                raise SpaceError(
                    f"{parameter.name!r} lists a value twice, behind which KerasTuner's "
                    f"{cls.oracle} never gets: list each once, or take sampler grid"
                )

    @classmethod
    def limit(cls, study: Study) -> int | None:
        levels = {
            parameter.name: [parameter.nearest(level) for level in grid_levels(parameter)]
            for parameter in study.space.parameters
        }
        return study.space.grid(levels).size


class KtHyperband(_OneNameEach):
    """KerasTuner's HyperbandOracle; the study's epochs are the most that a trial gets.

    A promotion is a trial of its own, which goes on from the checkpoint of the promoted one.
    """

    oracle = "HyperbandOracle"
    decides_epochs = True
    exhaustive = True
    takes_given = False

    @property
    def promotes(self) -> bool:
        return True

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return sum(_round_sizes(study.epochs))


def _round_sizes(epochs: int, factor: int = 3) -> Iterator[int]:
    """How many trials each round of each bracket has, as HyperbandOracle counts them."""
    brackets, left = 0, float(epochs)
    while left >= 1:
        brackets, left = brackets + 1, left / factor
    final = math.ceil(1 + math.log(epochs, factor))
    for bracket in range(brackets):
        for round_number in range(bracket + 1):
            yield math.ceil(final / (bracket + 1) * factor ** (bracket - round_number))
