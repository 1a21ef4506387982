"""A ledger with TensorBoard's files beside it, as a chief keeps them."""

from __future__ import annotations

import pathlib
from typing import Any

from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.trial import Params, TrialRecord, TrialState

OBJECTIVE = "val_accuracy"
BEGAN = 1_700_000_000.0
SGD = (Condition("optimizer", ("sgd",)),)
ADAM = (Condition("optimizer", ("adam",)),)
SPACE = SearchSpace(
    [
        Parameter("optimizer", Kind.CHOICE, values=("sgd", "adam")),
        Parameter("lr", Kind.FLOAT, low=1e-4, high=1e-1, sampling="log"),
        Parameter("units", Kind.INT, low=1, high=100, sampling="reverse_log"),
        Parameter("width", Kind.INT, low=8, high=64, step=8),
        Parameter("augment", Kind.BOOLEAN),
        Parameter("patience", Kind.CHOICE, values=(1, 2.5)),
        Parameter("momentum", Kind.FLOAT, low=0.0, high=0.9, conditions=SGD),
        # One name, two meanings: numbers here and there, and words here but numbers there.
        Parameter("depth", Kind.CHOICE, values=(1, 2, 3), conditions=SGD),
        Parameter("depth", Kind.INT, low=4, high=8, conditions=ADAM),
        Parameter("penalty", Kind.CHOICE, values=("None", "l2"), conditions=SGD),
        Parameter("penalty", Kind.CHOICE, values=(0.1, 0.2), conditions=ADAM),
        Parameter("classes", Kind.FIXED, default=10),
    ]
)
COMMON: Params = {"lr": 0.01, "units": 50, "width": 16, "augment": True, "classes": 10}
WITH_SGD: Params = {
    "optimizer": "sgd",
    **COMMON,
    "patience": 1,
    "momentum": 0.5,
    "depth": 2,
    "penalty": "None",
}


def a_study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "toy",
        "form": Form.KERAS,
        "objective": OBJECTIVE,
        "direction": "max",
        "epochs": 4,
        "batch_size": 32,
        "space": SPACE.to_json(),
        "grid": {},
        "digest": "0" * 64,
    }
    return Study.from_json({**fields, **changes})


def a_record(trial: int, params: Params = WITH_SGD, attempt: int = 1) -> TrialRecord:
    return TrialRecord(
        trial_id=f"{trial:04d}",
        attempt=attempt,
        state=TrialState.RUNNING,
        params=params,
        engine="keras-tuner",
        sampler="random",
        sampler_impl="random 1",
        seed=trial,
        study_digest="0" * 64,
        started_at=BEGAN + 100 * trial + 10 * attempt,
    )


def events_of(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(directory.glob("*tfevents*"))
