"""Ray Tune beside the chief: a searcher and a scheduler that ask and tell the coordinator.

One Ray trial is one attempt. What Ray is told is in the ledger before Ray goes on, and Ray
never tries anything again by itself: its own record of the search is never read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from hpo.engines.ray_tune.agent import Agent
from hpo.engines.ray_tune.desk import Desk, OverError
from hpo.engines.ray_tune.messages import ORDER, SAID, CheckpointWanted, Order, Said, Setup
from hpo.engines.ray_tune.place import Place
from hpo.errors import PlaceError, TuneFleetError, first_line
from hpo.fleet.chief import Chief
from hpo.link import Outcome
from hpo.protocol import Attempt, Verdict
from hpo.trial import Answer
from hpo.trial_process import Offered, Reported, Resumed, Saved
from hpo.weights import Incoming

log = logging.getLogger("tunefleet.ray")

_LOOK_S = 1.0
# An actor that was told to end and says nothing for so long will not; nor does one answer
# that is stopped, or cut off.
_END_S = 5.0
_T = TypeVar("_T")


class Bridge:
    """From Ray's thread into the chief's event loop, where its desk lives."""

    def __init__(self, chief: Chief, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        self.chief = chief
        self.desk = desk
        self._loop = loop

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # Ray keeps a copy of what asks and tells, to restore it: here a search goes on from
        # its ledger, and nothing reads that copy.
        return type(None), ()

    def fail(self, error: TuneFleetError) -> None:
        """The search cannot go on."""
        self._loop.call_soon_threadsafe(self.chief.fail, error)

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What ``work`` answers, once all that it changed is durable."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Asking(Searcher):  # type: ignore[misc]
    """Each trial that Ray asks for is the next attempt of the search."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The order for an attempt, nothing just now, or the end."""
        try:
            attempt = self._bridge.wait(self._bridge.desk.order(trial_id))
        except OverError:
            return str(Searcher.FINISHED)
        return {ORDER: self._order(attempt)} if attempt else None

    def _order(self, attempt: Attempt) -> Order:
        record = attempt.record
        return Order(
            trial_id=record.trial_id,
            attempt=record.attempt,
            params=record.params,
            seed=record.seed,
            epochs=record.epochs,
            has_checkpoint=self._bridge.chief.checkpoint_for(record) is not None,
        )

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ray tells its scheduler too, who knows more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its ledger."""


class Telling(TrialScheduler):  # type: ignore[misc]
    """Whatever an attempt says goes to the coordinator, whose answer decides."""

    def __init__(self, bridge: Bridge, place: Place) -> None:
        super().__init__()
        self._bridge = bridge
        self._place = place
        self._trials: dict[str, Any] = {}
        self._lost_at: dict[str, float] = {}
        self._looked_at = 0.0

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._trials[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Hands on what the attempt said; Ray asks for its next step, or ends it."""
        said: Said = result[SAID]
        try:
            goes_on = self._hand_on(trial, said, result)
        except ray.exceptions.RayError as error:
            # Ray is about to say the same of its actor.
            log.info("a file was lost with its actor: %s", first_line(error))
            goes_on = True
        except TuneFleetError as error:
            self._bridge.fail(error)
            raise
        if not goes_on:
            self._bridge.wait(self._give_up(trial.trial_id))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """The actor died, or its host."""
        error = trial.get_pickled_error()
        if isinstance(error, ray.exceptions.RayTaskError):
            log.error("an actor has a defect: %s", error)
        else:
            log.warning("an actor is gone: %s", first_line(error))
        self._bridge.wait(self._bridge.desk.died(trial.trial_id))
        self._forget(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        self._forget(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._forget(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Ray starts trials in their order by itself; it comes by here once in a round."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        lost = self._bridge.wait(self._bridge.desk.look(self._place.room()))
        for ray_id in lost:
            if now - self._lost_at.setdefault(ray_id, now) > _END_S:
                self._end_by_force(tune_controller, self._trials[ray_id])

    def debug_string(self) -> str:
        """What Ray would show."""
        return ""

    def _hand_on(self, trial: Any, said: Said, result: Mapping[str, Any]) -> bool:
        """Whether the attempt goes on: not once it has ended, or is no longer its worker's."""
        seat = self._bridge.desk.seat(trial.trial_id)
        if seat is None:
            return False
        worker = dataclasses.replace(
            seat.worker, host=result["hostname"], pid=result["pid"], device=said.device
        )
        if not self._bridge.wait(self._bridge.desk.heard(trial.trial_id, worker)):
            return False
        message, actor = said.message, trial.temporary_state.ray_actor
        if isinstance(message, Reported):
            verdict = self._bridge.wait(self._bridge.desk.reported(trial.trial_id, message.report))
            if verdict in (Verdict.STOP, Verdict.SUSPEND):
                actor.hear.remote(Answer[verdict.value])
            return verdict is not Verdict.LOST
        if isinstance(message, Offered):
            if self._bridge.chief.wants_weights(message.value):
                actor.hear.remote(True)
        elif isinstance(message, Resumed):
            self._bridge.wait(self._bridge.desk.resumed(trial.trial_id, message.epoch))
        elif isinstance(message, CheckpointWanted):
            path = self._bridge.chief.checkpoint_for(seat.attempt.record)
            if path:
                actor.take.remote(path.read_bytes())
        elif isinstance(message, Saved):
            store = self._bridge.chief.checkpoints
            _receive(actor, store.receive(seat.trial_id, message.epoch))
            self._bridge.wait(self._tidy())
        elif isinstance(message, Outcome):
            self._end(trial, said, message)
            return False
        return True

    def _end(self, trial: Any, said: Said, outcome: Outcome) -> None:
        """Everything that belongs to the attempt is here before its end is."""
        seat = self._bridge.desk.seat(trial.trial_id)
        assert seat is not None
        if said.log:
            record = seat.attempt.record
            path = self._bridge.chief.run.trial_log(record.trial_id, record.attempt)
            path.write_bytes(said.log)
        if outcome.weights:
            weights = self._bridge.chief.weights.receive(seat.trial_id)
            _receive(trial.temporary_state.ray_actor, weights)
        self._bridge.wait(self._bridge.desk.ended(trial.trial_id, outcome))

    def _end_by_force(self, tune_controller: Any, trial: Any) -> None:
        actor = trial.temporary_state.ray_actor
        self._bridge.wait(self._give_up(trial.trial_id))
        if actor is None:
            # It has yet to start.
            tune_controller.stop_trial(trial)
        else:
            ray.kill(actor)

    async def _give_up(self, ray_id: str) -> None:
        self._bridge.desk.free(ray_id)

    async def _tidy(self) -> None:
        self._bridge.chief.tidy_checkpoints()

    def _forget(self, trial: Any) -> None:
        self._trials.pop(trial.trial_id, None)
        self._lost_at.pop(trial.trial_id, None)


def drive(bridge: Bridge, setup: Setup, place: Place) -> None:
    """Runs Ray Tune until the search is over."""
    bundle = {name: amount for name, amount in place.resources.items() if amount}
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Agent, setup=setup), tune.PlacementGroupFactory([bundle])
        ),
        tune_config=tune.TuneConfig(
            search_alg=Asking(bridge),
            scheduler=Telling(bridge, place),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(place.folder / "tune"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    tuner.fit()


def _receive(actor: Any, incoming: Incoming) -> None:
    """Takes a file from an actor; PlaceError where it comes damaged."""
    try:
        while isinstance(part := ray.get(actor.part.remote()), bytes):
            incoming.write(part)
        if not incoming.finish(part):
            raise PlaceError("a file came damaged from its actor: is its host's memory sound?")
    finally:
        incoming.discard()
