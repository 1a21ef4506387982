"""The winner on the test set, in a process of its own."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from hpo import child
from hpo.inputs import Inputs
from hpo.run import Run
from hpo.runner import build, inputs_of, set_up_tensorflow
from hpo.study import Form, StudyModule
from hpo.trial import Metrics, TrialRecord
from hpo.weights import WeightsStore


def evaluate_winner(
    run: Run, winner: TrialRecord, environ: Mapping[str, str], debug: bool = False
) -> Metrics | None:
    """The test metrics of ``winner``; None where the study has no test set or kept no weights."""
    weights = WeightsStore(run.weights).path(winner.trial_id)
    if run.study.form != Form.KERAS or not weights.is_file():
        return None
    point = json.dumps({"params": winner.params, "seed": winner.seed})
    arguments = [str(run.folder), str(weights), point]
    reply = child.ask("hpo.evaluation", arguments, environ, debug)
    return dict(reply["metrics"])


def _evaluate(folder: str, weights: str, point: str) -> dict[str, Any]:
    run = Run(pathlib.Path(folder))
    chosen = json.loads(point)
    module = StudyModule(run.study_path())
    model = restore(run, module, chosen, weights)
    return {"metrics": metrics_on_test(model, inputs_of(module, chosen["params"]))}


def restore(run: Run, module: StudyModule, chosen: Mapping[str, Any], weights: str) -> Any:
    """The model at the ``params`` and ``seed`` that were ``chosen``, with its kept weights."""
    set_up_tensorflow(chosen["seed"], run.settings.get("precision"))
    model = build(module, run.study.space, chosen["params"])
    model.load_weights(weights)
    return model


def metrics_on_test(model: Any, data: Inputs) -> Metrics:
    """What ``model`` reaches on the test set."""
    metrics = model.evaluate(data.test, return_dict=True, verbose=0)
    return {name: float(value) for name, value in metrics.items()}


if __name__ == "__main__":
    child.answer(sys.argv[1], lambda: _evaluate(*sys.argv[2:]))
