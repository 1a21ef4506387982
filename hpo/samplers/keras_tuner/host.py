"""KerasTuner's oracles, made to answer from (seed, trial id, records) alone. A child's main.

An oracle keeps hidden state between two proposals: where its random numbers stand, the model
it fitted last, a queue, open brackets. Each kind here sets or rebuilds what its oracle keeps,
so that one which was told the records anew proposes what the first would have proposed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from hpo.hyperparameters import to_hyperparameters
from hpo.keras_tuner_parts import objective_class, oracle_class, trial_class
from hpo.samplers.base import seed_of
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import Params, TrialState

# So often an oracle is asked again whose point lies outside of the space.
_ASKS = 4


class Hosted:
    """An oracle that draws at random; the others add what they remember besides."""

    def __init__(self, kind: str, study: Study, seed: int, **options: Any) -> None:
        self.space: SearchSpace = study.space
        self.seed = seed
        self.oracle = oracle_class(kind)(
            objective=objective_class()(study.objective, study.direction.value),
            hyperparameters=to_hyperparameters(study.space, {}),
            # KerasTuner takes 0 for no seed and draws one.
            seed=1 + seed_of(seed, "oracle"),
            **options,
        )

    def ask(self, trial_id: str) -> dict[str, Any]:
        """The next point, or that there is none now or ever; as JSON."""
        for number in range(_ASKS):
            self.before_ask(trial_id, number)
            response = self.oracle.populate_space(trial_id)
            if response["status"] != "RUNNING":
                return {"kind": "wait" if response["status"] == "IDLE" else "exhausted"}
            values = {name: _plain(value) for name, value in response["values"].items()}
            params, note = self._inside(values)
            if not note or not self.can_ask_again():
                break
        tag = self.tag_of(trial_id, values, params)
        self._begin(trial_id, params, tag)
        epochs = values.get("tuner/epochs")
        return {"kind": "proposal", "params": params, "tag": tag, "epochs": epochs, "note": note}

    def asked(self, trial_id: str, params: Params, tag: dict[str, Any]) -> None:
        """An earlier ask of a host that is gone became ``params``."""
        self.replay(trial_id, params, tag)
        self._begin(trial_id, params, tag)

    def told(self, trial_id: str, state: TrialState, value: float | None) -> None:
        """A trial has ended. One that was pruned has the value it had reached."""
        trial = self.oracle.trials[trial_id]
        scored = state is not TrialState.FAILED and value is not None
        trial.status = "COMPLETED" if scored else "FAILED"
        trial.score = value
        # A trial that is told of again has ended anew: its later end is the one that counts.
        if self.oracle.ongoing_trials.pop(trial_id, None):
            self.oracle.end_order.append(trial_id)

    def moved(self, trial_id: str, params: Params) -> None:
        """A trial that runs does so at ``params`` instead of what was proposed."""
        trial = self.oracle.trials[trial_id]
        trial.hyperparameters.values = dict(self.values_of(params, {}))
        self.oracle._record_values(trial)

    def before_ask(self, trial_id: str, number: int) -> None:
        """Sets the hidden state for the ``number``-th try at ``trial_id``."""
        self.oracle._seed_state = seed_of(self.seed, f"{trial_id}/{number}")

    def can_ask_again(self) -> bool:
        """Whether an ask leaves no trace in the oracle before it is recorded."""
        return True

    def tag_of(self, trial_id: str, values: Params, params: Params) -> dict[str, Any]:
        """What :meth:`replay` must know of a proposal besides its parameters."""
        return {}

    def replay(self, trial_id: str, params: Params, tag: dict[str, Any]) -> None:
        """Does to the oracle's memory what the ask did that became this trial."""

    def values_of(self, params: Params, tag: dict[str, Any]) -> Params:
        """The trial's values as the oracle is to see them."""
        return params

    def _begin(self, trial_id: str, params: Params, tag: dict[str, Any]) -> None:
        hyperparameters = self.oracle.get_space()
        hyperparameters.values = dict(self.values_of(params, tag))
        trial = trial_class()(hyperparameters, trial_id, "RUNNING")
        self.oracle._record_values(trial)
        self.oracle.trials[trial_id] = self.oracle.ongoing_trials[trial_id] = trial
        self.oracle.start_order.append(trial_id)

    def _inside(self, values: Params) -> tuple[Params, str]:
        """The point of the space nearest to ``values``, and what had to be moved."""
        moved = []

        def choose(parameter: Any) -> Any:
            value = values.get(parameter.name, parameter.initial)
            nearest = parameter.nearest(value)
            if not parameter.contains(value) and nearest != value:
                moved.append(f"{parameter.name} {value} moved to {nearest}")
            return nearest

        params = self.space.draw(choose)
        return params, ", ".join(moved)


class HostedGrid(Hosted):
    """Its memory is the order of all points so far, and who is to be followed next."""

    def __init__(self, kind: str, study: Study, seed: int) -> None:
        super().__init__(kind, study, seed)
        self._sorted: list[str] = []

    def can_ask_again(self) -> bool:
        return False

    def tag_of(self, trial_id: str, values: Params, params: Params) -> dict[str, Any]:
        # It finds a trial's place by looking its values up in its own lists of levels.
        return {} if values == params else {"values": values}

    def values_of(self, params: Params, tag: dict[str, Any]) -> Params:
        values: Params = tag.get("values", params)
        return values

    def moved(self, trial_id: str, params: Params) -> None:
        # It looks for a trial's values among its own levels, and pays no heed to results.
        return

    def replay(self, trial_id: str, params: Params, tag: dict[str, Any]) -> None:
        values = self.values_of(params, tag)
        place = self._place(values)
        before = self._sorted[place - 1] if place else None
        self.oracle._ordered_ids.insert(trial_id, before)
        self._sorted.insert(place, trial_id)
        if len(self._sorted) == 1:
            self.oracle._populate_next.append(trial_id)

    def told(self, trial_id: str, state: TrialState, value: float | None) -> None:
        super().told(trial_id, state, value)
        self.oracle._populate_next.append(trial_id)

    def _place(self, values: Params) -> int:
        """How many of the replayed trials come before ``values`` in the oracle's order."""
        low, high = 0, len(self._sorted)
        while low < high:
            middle = (low + high) // 2
            other = self.oracle.trials[self._sorted[middle]].hyperparameters.values
            if self.oracle._compare(other, values) < 0:
                low = middle + 1
            else:
                high = middle
        return low


class HostedBayesian(Hosted):
    """Its memory is a generator, and the model of the ask before, which rates what is pending."""

    def __init__(self, kind: str, study: Study, seed: int) -> None:
        super().__init__(kind, study, seed, max_trials=None)

    def before_ask(self, trial_id: str, number: int) -> None:
        super().before_ask(trial_id, number)
        oracle = self.oracle
        oracle._random_state = np.random.RandomState(oracle._seed_state)
        oracle.gpr = oracle._make_gpr()
        everything = oracle.trials, oracle.ongoing_trials
        completed = {key: t for key, t in oracle.trials.items() if t.status == "COMPLETED"}
        if not completed or not oracle.ongoing_trials:
            return
        oracle.trials, oracle.ongoing_trials = completed, {}
        x, y = oracle._vectorize_trials()
        oracle.trials, oracle.ongoing_trials = everything
        oracle.gpr.fit(np.nan_to_num(x, posinf=0, neginf=0), np.nan_to_num(y, posinf=0, neginf=0))


class HostedHyperband(Hosted):
    """Its memory is its brackets: which trial is in which round, promoted from which other."""

    def __init__(self, kind: str, study: Study, seed: int) -> None:
        super().__init__(kind, study, seed, max_epochs=study.epochs)

    def can_ask_again(self) -> bool:
        return False

    def tag_of(self, trial_id: str, values: Params, params: Params) -> dict[str, Any]:
        # Its own tuner/bracket names the newest bracket, not the one this trial is in.
        for bracket in self.oracle._brackets:
            for number, members in enumerate(bracket["rounds"]):
                for member in members:
                    if member["id"] == trial_id:
                        place = {"bracket": bracket["bracket_num"], "round": number}
                        return {**place, "promoted": member["past_id"]}
        raise AssertionError(f"Hyperband put trial {trial_id} into no bracket")

    def replay(self, trial_id: str, params: Params, tag: dict[str, Any]) -> None:
        oracle = self.oracle
        while not any(b["bracket_num"] == tag["bracket"] for b in oracle._brackets):
            oracle._increment_bracket_num()
            oracle._start_new_bracket()
        bracket = next(b for b in oracle._brackets if b["bracket_num"] == tag["bracket"])
        bracket["rounds"][tag["round"]].append({"past_id": tag["promoted"], "id": trial_id})


_HOSTS: dict[str, type[Hosted]] = {
    "RandomSearchOracle": Hosted,
    "GridSearchOracle": HostedGrid,
    "BayesianOptimizationOracle": HostedBayesian,
    "HyperbandOracle": HostedHyperband,
}


def host(kind: str, study: Study, seed: int) -> Hosted:
    """KerasTuner's oracle ``kind`` for a run of ``study``."""
    return _HOSTS[kind](kind, study, seed)


def _plain(value: Any) -> Any:
    """A value of NumPy's as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _handle(sessions: dict[int, Hosted], request: dict[str, Any]) -> dict[str, Any]:
    for session in request["left"]:
        sessions.pop(session, None)
    if "open" in request:
        study = Study.from_json(request["study"])
        sessions[request["open"]] = host(request["oracle"], study, request["seed"])
        return {}
    hosted = sessions[request["ask"]]
    for event in request["events"]:
        trial_id = event["trial_id"]
        if "params" in event:
            hosted.asked(trial_id, event["params"], event["tag"])
        elif "moved" in event:
            hosted.moved(trial_id, event["moved"])
        else:
            hosted.told(trial_id, TrialState(event["state"]), event["value"])
    return hosted.ask(request["trial_id"])


def _lines(source: TextIO) -> Iterator[str]:
    """The lines of ``source``; its end ends this process, whatever an oracle is at."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _serve(requests: TextIO, answers: TextIO) -> None:
    sessions: dict[int, Hosted] = {}
    for line in _lines(requests):
        try:
            reply = _handle(sessions, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"KerasTuner's oracle raised {error!r}"}
        print(json.dumps(reply), file=answers, flush=True)


def main() -> None:
    """Answers what comes on standard input until that closes."""
    # Ctrl-C reaches the whole group: the chief decides when this process is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A Gaussian process at the edge of its range is no news to who reads the chief's log.
    warnings.filterwarnings("ignore", module="sklearn")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What the oracles print must not end up between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
