"""Runs one trial: the only place that builds and fits a model."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import random
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hpo import checkpoint, memory
from hpo.checkpoint import Progress
from hpo.errors import StudyError
from hpo.hyperparameters import to_hyperparameters
from hpo.inputs import Inputs, prepare, skip_epochs
from hpo.schedule import NEVER, Schedule
from hpo.space import SearchSpace
from hpo.study import Form, StudyModule, metrics_of
from hpo.trial import Answer, Direction, Failure, Params, Report

# Called after each step; answers whether to go on.
ReportFn = Callable[[Report], Answer]


class Link(Protocol):
    """What a trial says to whoever runs it."""

    def report(self, report: Report) -> Answer:
        """After each step; answers whether to go on."""

    def wanted(self, value: float) -> bool:
        """At the end, with the best value; answers whether the weights are wanted."""

    def saved(self, path: pathlib.Path, epoch: int) -> None:
        """A checkpoint after ``epoch`` lies at ``path``, which is the listener's to remove."""

    def resumed(self, epoch: int) -> None:
        """An earlier attempt's checkpoint fits: the trial goes on after ``epoch``."""


@dataclasses.dataclass(frozen=True)
class TrialOrder:
    """All that a trial process must know of its trial besides the study's file.

    ``seed`` is the trial's own, ``split_seed`` the run's: every trial of a run validates
    on the same examples. It goes on from ``checkpoint``, if there is one that fits.
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
    schedule: Schedule = NEVER
    checkpoint: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended in its process: a failure with its story, or None for completed.

    One that is ``suspended`` has not ended: another attempt goes on from its checkpoint.
    """

    failure: Failure | None = None
    error: str | None = None
    weights: pathlib.Path | None = None
    suspended: bool = False


def run_trial(
    module: StudyModule,
    order: TrialOrder,
    link: Link,
    scratch: pathlib.Path,
) -> Outcome:
    """Runs the trial ``order`` of a study and answers how it ended; never raises.

    Checkpoints are written into ``scratch``, and at the end the best epoch's weights where
    they are wanted.
    """
    try:
        order.space.validate(order.params)
        random.seed(order.seed)
        if module.form == Form.FUNCTION:
            return _run_function(module, order, link.report)
        return _fit(module, order, link, scratch)
    except Exception as error:  # Whatever a study raises is a result, not our failure
        failure = Failure.OOM if memory.ran_out(error) else Failure.CODE
        return Outcome(failure, traceback.format_exc())


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


def _fit(module: StudyModule, order: TrialOrder, link: Link, scratch: pathlib.Path) -> Outcome:
    set_up_tensorflow(order.seed)
    model = build(module, order.space, order.params)
    data = inputs_of(module, order.params, order)
    hp = to_hyperparameters(order.space, order.params)
    watch = _watch(order, link, module.callbacks(hp), scratch)
    if module.fit:
        module.fit(hp, model, data, watch.callbacks)
    else:
        if order.checkpoint and not watch.go_on_from(order.checkpoint, model):
            # It may be half of another one by now.
            set_up_tensorflow(order.seed)
            model = build(module, order.space, order.params)
        skip_epochs(data.train, watch.progress.epoch)
        model.fit(
            data.train,
            validation_data=data.validation,
            initial_epoch=watch.progress.epoch,
            epochs=epochs_of(module, order),
            callbacks=watch.callbacks,
            shuffle=False,  # The set shuffles itself.
            verbose=2,
        )
    if watch.suspended:
        return Outcome(suspended=True)
    if watch.failure:
        return Outcome(Failure.NAN, watch.failure)
    if watch.progress.best is None or not link.wanted(watch.progress.best):
        return Outcome()
    model.set_weights(watch.progress.best_weights)
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


def _watch(order: TrialOrder, link: Link, others: list[Any], scratch: pathlib.Path) -> Any:
    """A Keras callback that reports each epoch, keeps the best weights and ends on a NaN.

    It stands behind the study's ``others``, saves them with the model when it is time, and
    lets them count on in a trial that goes on.
    """
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.callbacks = [*others, self]
            self.progress = Progress(order.trial_id)
            self.failure: str | None = None
            self.suspended = False
            self._counted: list[dict[str, Any]] = []
            self._saved_epoch, self._saved_at = 0, time.monotonic()

        def go_on_from(self, path: pathlib.Path, model: Any) -> bool:
            """Whether the checkpoint fits; if so the model is as it was."""
            try:
                found, self._counted = checkpoint.restore(path, model)
            except StudyError as error:
                print(f"{error}; the trial starts anew", flush=True)
                return False
            if found.trial_id == order.trial_id:
                self.progress = found
                link.resumed(found.epoch)
            else:
                # The values of the trial that this one goes on from are not its own.
                self.progress.epoch = found.epoch
            self._saved_epoch = found.epoch
            return True

        def on_train_begin(self, logs: Any = None) -> None:
            if self._counted:
                checkpoint.restore_callbacks(others, self._counted)

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            metrics = metrics_of(logs or {}, "Keras")
            self.progress.epoch = epoch + 1
            answer = link.report(Report(epoch + 1, metrics))
            value = metrics.get(order.objective)
            for name in (order.objective, "loss"):
                if not math.isfinite(metrics.get(name, 0.0)):
                    self.failure = f"{name} is {metrics[name]} after epoch {epoch + 1}"
            if self.failure or answer is Answer.STOP:
                self.model.stop_training = True
                return
            if value is not None and order.direction.better(value, self.progress.best):
                self.progress.best, self.progress.best_weights = value, self.model.get_weights()
            since = time.monotonic() - self._saved_at
            if order.schedule.due(epoch + 1 - self._saved_epoch, since):
                self._save()
            if answer is Answer.SUSPEND:
                self.model.stop_training = self.suspended = True

        def on_train_end(self, logs: Any = None) -> None:
            unsaved = self.progress.epoch > self._saved_epoch
            if (order.schedule.last or self.suspended) and unsaved and not self.failure:
                self._save()

        def _save(self) -> None:
            path = scratch / f"{order.trial_id}-{self.progress.epoch}.checkpoint"
            checkpoint.save(path, self.model, others, self.progress)
            self._saved_epoch, self._saved_at = self.progress.epoch, time.monotonic()
            link.saved(path, self.progress.epoch)

    return Watch()


def _run_function(module: StudyModule, order: TrialOrder, report: ReportFn) -> Outcome:
    steps: list[Report] = []

    def tell(step: int, metrics: Mapping[str, Any]) -> bool:
        """What a study's ``evaluate`` calls as ``report``."""
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise StudyError(f"report(step={step!r}, ...): steps are integers that start at 1")
        steps.append(Report(step, metrics_of(metrics, f"report({step}, ...)")))
        return bool(report(steps[-1])) and (order.epochs is None or step < order.epochs)

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
