"""Runs one trial: the only place that builds and fits a model."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import random
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import StudyError
from hpo.hyperparameters import to_hyperparameters
from hpo.inputs import Inputs, prepare
from hpo.space import SearchSpace
from hpo.study import Form, StudyModule, metrics_of
from hpo.trial import Direction, Failure, Params, Report

# Called after each step; answers whether to go on.
ReportFn = Callable[[Report], bool]
# Called at the end with the best value; answers whether the weights are wanted.
WantedFn = Callable[[float], bool]


@dataclasses.dataclass(frozen=True)
class TrialOrder:
    """All that a trial process must know of its trial besides the study's file.

    ``seed`` is the trial's own, ``split_seed`` the run's: every trial of a run validates
    on the same examples.
    """

    trial_id: str
    params: Params
    seed: int
    split_seed: int
    objective: str
    direction: Direction
    epochs: int | None
    train_examples: int | None
    space: SearchSpace


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended in its process: a failure with its story, or None for completed."""

    failure: Failure | None = None
    error: str | None = None
    weights: pathlib.Path | None = None


def run_trial(
    module: StudyModule,
    order: TrialOrder,
    report: ReportFn,
    wanted: WantedFn,
    scratch: pathlib.Path,
) -> Outcome:
    """Runs the trial ``order`` of a study and answers how it ended; never raises.

    Where the chief wants the best epoch's weights they are written into ``scratch``.
    """
    try:
        order.space.validate(order.params)
        random.seed(order.seed)
        if module.form == Form.FUNCTION:
            return _run_function(module, order, report)
        return _fit(module, order, report, wanted, scratch)
    except Exception:  # Whatever a study raises is a result, not our failure
        return Outcome(Failure.CODE, traceback.format_exc())


def build(module: StudyModule, space: SearchSpace, params: Params) -> Any:
    """The compiled model at ``params``; raises StudyError where it is none, or not of the space."""
    hp = to_hyperparameters(space, params)
    model = module.build_model(hp)
    _check_declared(hp, space, module)
    check_compiled(model, module)
    return model


def check_compiled(model: Any, module: StudyModule) -> None:
    """Raises StudyError unless ``model`` is a compiled Keras model."""
    import keras

    if not isinstance(model, keras.Model):
        raise StudyError(
            f"build_model(hp) of {module.path.name} returned {type(model).__name__}: "
            "return a compiled keras.Model"
        )
    if not model.compiled:
        raise StudyError(
            f"build_model(hp) of {module.path.name} returned a model that is not compiled: "
            "call model.compile(optimizer=..., loss=..., metrics=...) before returning it"
        )


def inputs_of(
    module: StudyModule, params: Mapping[str, Any], order: TrialOrder | None = None
) -> Inputs:
    """The study's data, batched as ``params`` and the trial ``order`` say."""
    batch_size = batch_size_of(module, params)
    if order is None:
        return prepare(module.load_data(), batch_size, split_seed=0, shuffle_seed=0)
    return prepare(
        module.load_data(), batch_size, order.split_seed, order.seed, order.train_examples
    )


def _fit(
    module: StudyModule,
    order: TrialOrder,
    report: ReportFn,
    wanted: WantedFn,
    scratch: pathlib.Path,
) -> Outcome:
    set_up_tensorflow(order.seed)
    model = build(module, order.space, order.params)
    data = inputs_of(module, order.params, order)
    watch = _watch(order, report)
    hp = to_hyperparameters(order.space, order.params)
    callbacks = [*module.callbacks(hp), watch]
    if module.fit:
        module.fit(hp, model, data, callbacks)
    else:
        model.fit(
            data.train,
            validation_data=data.validation,
            epochs=epochs_of(module, order),
            callbacks=callbacks,
            shuffle=False,  # The set shuffles itself.
            verbose=2,
        )
    if watch.failure:
        return Outcome(Failure.NAN, watch.failure)
    if watch.best is None or not wanted(watch.best):
        return Outcome()
    model.set_weights(watch.best_weights)
    path = scratch / "best.weights.h5"
    model.save_weights(path)
    return Outcome(weights=path)


def batch_size_of(module: StudyModule, params: Mapping[str, Any]) -> int:
    """The tuned ``batch_size``, or the study's."""
    return int(params.get("batch_size", module.batch_size))


def epochs_of(module: StudyModule, order: TrialOrder) -> int:
    """How long to train: the tuned ``epochs`` or the study's, capped by what the run allows."""
    tuned = order.params.get("epochs")
    if tuned is None:
        return order.epochs or module.epochs
    return min(int(tuned), order.epochs) if order.epochs else int(tuned)


def set_up_tensorflow(seed: int) -> None:
    """Seeds and settings that make a trial repeatable and leave room on a shared GPU."""
    import keras
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _watch(order: TrialOrder, report: ReportFn) -> Any:
    """A Keras callback that reports each epoch, keeps the best weights and ends on a NaN."""
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        best: float | None = None
        best_weights: Any = None
        failure: str | None = None

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            metrics = metrics_of(logs or {}, "Keras")
            go_on = report(Report(epoch + 1, metrics))
            value = metrics.get(order.objective)
            for name in (order.objective, "loss"):
                if not math.isfinite(metrics.get(name, 0.0)):
                    self.failure = f"{name} is {metrics[name]} after epoch {epoch + 1}"
            if self.failure or not go_on:
                self.model.stop_training = True
            elif value is not None and order.direction.better(value, self.best):
                self.best, self.best_weights = value, self.model.get_weights()

    return Watch()


def _run_function(module: StudyModule, order: TrialOrder, report: ReportFn) -> Outcome:
    steps: list[Report] = []

    def tell(step: int, metrics: Mapping[str, Any]) -> bool:
        """What a study's ``evaluate`` calls as ``report``."""
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise StudyError(f"report(step={step!r}, ...): steps are integers that start at 1")
        steps.append(Report(step, metrics_of(metrics, f"report({step}, ...)")))
        return report(steps[-1]) and (order.epochs is None or step < order.epochs)

    hp = to_hyperparameters(order.space, order.params)
    answered = module.evaluate(hp, tell)
    _check_declared(hp, order.space, module)
    if not steps:
        raise StudyError("evaluate(hp, report) ended without a report: call report(1, metrics)")
    final = steps[-1].metrics | metrics_of(answered, "evaluate(hp, report)")
    if final != steps[-1].metrics:
        # What is returned is the last word on the last step.
        report(Report(steps[-1].step, final))
    return Outcome()


def _check_declared(hp: Any, space: SearchSpace, module: StudyModule) -> None:
    """Raises StudyError if the study used a hyperparameter that the search does not know."""
    known = {parameter.name for parameter in space.parameters}
    for parameter in hp.space:
        if parameter.name not in known:
            raise StudyError(
                f"{module.path.name} declared {parameter.name!r} only at {dict(hp.values)!r}, so "
                "it cannot be tuned: declare it at the top, or in a hp.conditional_scope"
            )
