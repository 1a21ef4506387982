"""All that a Keras trial must find again to go on from the end of an epoch, in one file.

A NumPy archive without pickled objects: the model's and its optimizer's variables, the best
epoch's weights, what the callbacks count, and as JSON which epoch it was.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hpo.errors import StudyError

_ABOUT = "about"
# What Keras sets itself when training begins.
_NOT_KEPT = {"params", "_model", "model"}


@dataclasses.dataclass
class Progress:
    """How far a trial has come: epochs done, its best value and that epoch's weights.

    ``ended`` says that its training was over with that epoch.
    """

    trial_id: str
    epoch: int = 0
    ended: bool = False
    best: float | None = None
    best_weights: list[Any] = dataclasses.field(default_factory=list)


def save(path: pathlib.Path, model: Any, callbacks: Sequence[Any], progress: Progress) -> None:
    """Writes ``path``; it appears whole."""
    arrays: dict[str, Any] = {
        f"variable-{i}": np.asarray(v) for i, v in enumerate(_variables(model))
    }
    arrays |= {f"best-{i}": np.asarray(v) for i, v in enumerate(progress.best_weights)}
    counted = []
    for i, callback in enumerate(callbacks):
        scalars, lists = _state_of(callback)
        counted.append({"scalars": scalars, "lists": {k: len(v) for k, v in lists.items()}})
        for name, values in lists.items():
            arrays |= {f"callback-{i}-{name}-{j}": np.asarray(v) for j, v in enumerate(values)}
    about = {
        "trial_id": progress.trial_id,
        "epoch": progress.epoch,
        "ended": progress.ended,
        "best": progress.best,
        "callbacks": counted,
    }
    draft = path.with_name(path.name + ".draft.npz")
    arrays[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(draft, **arrays)
    draft.replace(path)


def restore(path: pathlib.Path, model: Any) -> tuple[Progress, list[dict[str, Any]]]:
    """Sets the variables of ``model`` to those in the file.

    Answers the progress, and what to hand to :func:`restore_callbacks` once training has
    begun, which is when they forget. Raises StudyError for a file of another model, or one
    that is damaged; the model may then be half restored.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            about = json.loads(found[_ABOUT].tobytes())
            variables = list(_variables(model))
            for i, variable in enumerate(variables):
                variable.assign(found[f"variable-{i}"])
            if f"variable-{len(variables)}" in found:
                raise ValueError("it has more variables than the model")
            best = [found[name] for name in _numbered("best", found)]
            counted = [
                row["scalars"]
                | {
                    name: [found[f"callback-{i}-{name}-{j}"] for j in range(count)]
                    for name, count in row["lists"].items()
                }
                for i, row in enumerate(about["callbacks"])
            ]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StudyError(f"the checkpoint {path.name} does not fit this trial: {error}") from error
    progress = Progress(about["trial_id"], about["epoch"], about["ended"], about["best"], best)
    return progress, counted


def restore_callbacks(callbacks: Sequence[Any], counted: Sequence[dict[str, Any]]) -> None:
    """Lets ``callbacks`` count on from where they were."""
    for callback, state in zip(callbacks, counted, strict=True):
        vars(callback).update(state)


def _variables(model: Any) -> Iterator[Any]:
    """Weights, the states of random numbers, metrics, and the optimizer's own."""
    model.optimizer.build(model.trainable_variables)
    yield from model.variables
    yield from model.optimizer.variables


def _state_of(callback: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What a callback counts: plain values, and lists of arrays such as the best weights."""
    scalars, lists = {}, {}
    for name, value in vars(callback).items():
        if name in _NOT_KEPT:
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            scalars[name] = value
        elif isinstance(value, list) and all(isinstance(v, np.ndarray) for v in value):
            lists[name] = value
    return scalars, lists


def _numbered(prefix: str, names: Any) -> list[str]:
    count = sum(name.startswith(f"{prefix}-") for name in names)
    return [f"{prefix}-{i}" for i in range(count)]
