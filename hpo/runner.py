"""Runs one trial: the only place that builds and fits a model."""

from __future__ import annotations

import pathlib
import random
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpo import env, memory
from hpo.errors import StudyError
from hpo.hyperparameters import to_hyperparameters
from hpo.link import Link, Outcome, TrialOrder
from hpo.precision import apply as apply_precision
from hpo.settings import EARLY_STOPPING
from hpo.space import SearchSpace
from hpo.study import Form, StudyModule, metrics_of
from hpo.told import ReportFn, Told
from hpo.trial import Failure, Params

if TYPE_CHECKING:
    from hpo.inputs import Inputs


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
    # It brings NumPy in, which an agent and a plain function do without.
    from hpo.inputs import prepare

    batch_size = batch_size_of(module, params)
    if order is None:
        return prepare(module.load_data(), batch_size, split_seed=0, shuffle_seed=0)
    return prepare(
        module.load_data(), batch_size, order.split_seed, order.seed, order.train_examples
    )


def _fit(module: StudyModule, order: TrialOrder, link: Link, scratch: pathlib.Path) -> Outcome:
    # They bring Keras and NumPy in, which this module's importers do without.
    from hpo.inputs import skip_epochs
    from hpo.watch import Watch

    set_up_tensorflow(order.seed, order.settings.get("precision"))
    model = build(module, order.space, order.params)
    data = inputs_of(module, order.params, order)
    hp = to_hyperparameters(order.space, order.params)
    watch = Watch(order, link, callbacks(module, hp, order), scratch, saves=module.fit is None)
    if module.fit:
        module.fit(hp, model, data, watch.callbacks)
    else:
        if order.checkpoint and not watch.go_on_from(order.checkpoint, model):
            # It may be half of another one by now.
            set_up_tensorflow(order.seed, order.settings.get("precision"))
            model = build(module, order.space, order.params)
        if not watch.progress.ended:
            _create_optimizer_state(model)
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
    if watch.stopped or watch.progress.best is None or not link.wanted(watch.progress.best):
        return Outcome()
    model.set_weights(watch.progress.best_weights)
    path = scratch / "best.weights.h5"
    model.save_weights(path)
    return Outcome(weights=path)


def _create_optimizer_state(model: Any) -> None:
    """What `fit` would do while it traces its step, in a branch of the graph for each weight.

    The figures are the same, and each trial begins 0.4 s earlier.
    """
    if model.built and model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def callbacks(module: StudyModule, hp: Any, order: TrialOrder) -> list[Any]:
    """The study's own, without those that end a trial early where the run is to have none."""
    import keras

    own = module.callbacks(hp)
    if order.settings.get(EARLY_STOPPING) != "off":
        return own
    return [each for each in own if not isinstance(each, keras.callbacks.EarlyStopping)]


def batch_size_of(module: StudyModule, params: Mapping[str, Any]) -> int:
    """The tuned ``batch_size``, or the study's."""
    return int(params.get("batch_size", module.batch_size))


def epochs_of(module: StudyModule, order: TrialOrder) -> int:
    """How long to train: the tuned ``epochs`` or the study's, capped by what the run allows."""
    tuned = order.params.get("epochs")
    if tuned is None:
        return order.epochs or module.epochs
    return min(int(tuned), order.epochs) if order.epochs else int(tuned)


def set_up_tensorflow(seed: int, precision: str | None = None) -> None:
    """Seeds and settings that make a trial repeatable and leave room on a shared GPU."""
    import keras
    import tensorflow as tf

    limit_mb = env.gpu_memory_mb()
    for gpu in tf.config.list_physical_devices("GPU"):
        if limit_mb is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            # Others have their part of it. TensorFlow takes all of its own at once.
            part = tf.config.LogicalDeviceConfiguration(memory_limit=limit_mb)
            tf.config.set_logical_device_configuration(gpu, [part])
    apply_precision(precision)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _run_function(module: StudyModule, order: TrialOrder, report: ReportFn) -> Outcome:
    told = Told(order, report)
    hp = to_hyperparameters(order.space, order.params)
    try:
        answered = module.evaluate(hp, told)
        _check_declared(hp, order.space, module)
        told.last_word(metrics_of(answered, "evaluate(hp, report)"))
    except Exception:
        # Code that goes on with a NaN often stumbles over it.
        if not told.failure:
            raise
    return Outcome(Failure.NAN, told.failure) if told.failure else Outcome()


def _check_declared(hp: Any, space: SearchSpace, module: StudyModule) -> None:
    """Raises StudyError if the study used a hyperparameter that the search does not know."""
    known = {parameter.name for parameter in space.parameters}
    for parameter in hp.space:
        if parameter.name not in known:
            raise StudyError(
                f"{module.path.name} declared {parameter.name!r} only at {dict(hp.values)!r}, so "
                "it cannot be tuned: declare it at the top, or in a hp.conditional_scope"
            )
