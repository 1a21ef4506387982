"""The trial runner and the inputs it prepares, on real models."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np
import pytest

from hpo.discovery import discover
from hpo.errors import StudyError, UsageError
from hpo.inputs import prepare
from hpo.link import Outcome, TrialOrder
from hpo.runner import run_trial, set_up_tensorflow
from hpo.study import StudyModule
from hpo.trial import Direction, Failure, Params, Report
from hpo.weights import WeightsStore
from tests.support.trial_listener import Listener

HEAD = """
import keras
import numpy as np

def load_data():
    x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32")
    return (x, y), (x, y)

def build_model(hp):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    rate = hp.Float("rate", 1e-3, 1e30, sampling="log")
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    return model
"""


def run(
    folder: pathlib.Path, text: str, params: Params, **changes: Any
) -> tuple[Outcome, list[Report]]:
    """A trial of the study ``text``; answers its outcome and what it reported."""
    file = folder / "study_under_test.py"
    file.write_text(text)
    module = StudyModule(file)
    use = module.build_model if module.form == "keras" else (lambda hp: hp.Int("n", 1, 4))
    fields: dict[str, Any] = {
        "trial_id": "0000",
        "params": params,
        "seed": 1,
        "split_seed": 2,
        "objective": module.objective,
        "direction": module.direction,
        "epochs": None,
        "train_examples": None,
        "space": discover(use),
    }
    order = TrialOrder(**{**fields, **changes})
    listener = Listener()
    return run_trial(module, order, listener, folder), listener.reports


def test_the_best_epochs_weights_are_kept(tmp_path: pathlib.Path) -> None:
    import h5py

    outcome, reports = run(tmp_path, HEAD + "EPOCHS = 4\n", {"rate": 0.1})
    assert outcome.failure is None, outcome.error
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert set(reports[0].metrics) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert outcome.weights is not None
    with h5py.File(outcome.weights) as file:
        assert "layers" in file


def test_tuned_epochs_and_batch_size_govern_fit(tmp_path: pathlib.Path) -> None:
    tuned = "\n_build = build_model\ndef build_model(hp):\n" + (
        "    hp.Int('epochs', 1, 9); hp.Int('batch_size', 8, 64); return _build(hp)\n"
    )
    params: Params = {"epochs": 3, "batch_size": 64, "rate": 0.1}
    _, reports = run(tmp_path, HEAD + tuned, params)
    assert len(reports) == 3
    _, capped = run(tmp_path, HEAD + tuned, params, epochs=2)
    assert len(capped) == 2


def test_a_nan_ends_the_trial_at_its_epoch(tmp_path: pathlib.Path) -> None:
    diverging = HEAD.replace('"binary_crossentropy"', '"mse"').replace('"sigmoid"', '"linear"')
    outcome, reports = run(tmp_path, diverging, {"rate": 1e30})
    assert outcome.failure is Failure.NAN
    assert len(reports) == 1
    assert "after epoch 1" in (outcome.error or "")


def test_the_chiefs_stop_ends_training(tmp_path: pathlib.Path) -> None:
    _, reports = run(tmp_path, HEAD + "EPOCHS = 50\n", {"rate": 0.01})
    assert len(reports) == 20


def test_early_stopping_can_be_switched_off(tmp_path: pathlib.Path) -> None:
    impatient = (
        "EPOCHS = 7\n"
        "def callbacks(hp):\n"
        "    never_better = keras.callbacks.EarlyStopping('val_loss', min_delta=99.0, patience=2)\n"
        "    return [never_better, keras.callbacks.TerminateOnNaN()]\n"
    )
    for setting, epochs in (({}, 3), ({"early_stopping": "on"}, 3), ({"early_stopping": "off"}, 7)):
        outcome, reports = run(tmp_path, HEAD + impatient, {"rate": 0.1}, settings=setting)
        assert outcome.failure is None, outcome.error
        assert len(reports) == epochs


def test_a_fit_of_ones_own(tmp_path: pathlib.Path) -> None:
    own = (
        "def fit(hp, model, data, callbacks):\n"
        "    model.fit(data.train, validation_data=data.test, epochs=2, callbacks=callbacks)\n"
    )
    outcome, reports = run(tmp_path, HEAD + own, {"rate": 0.1})
    assert outcome.failure is None, outcome.error
    assert len(reports) == 2


def test_what_is_declared_too_late_fails_the_trial_by_name(tmp_path: pathlib.Path) -> None:
    text = "OBJECTIVE = 'loss'\ndef evaluate(hp, report):\n    hp.Int('n', 1, 4)\n" + (
        "    report(1, {'loss': 1.0})\n    hp.Int('late', 1, 4)\n    return {}\n"
    )
    outcome, _ = run(tmp_path, text, {"n": 1})
    assert outcome.failure is Failure.CODE
    assert "'late'" in (outcome.error or "")


def test_a_point_outside_the_space_never_trains(tmp_path: pathlib.Path) -> None:
    outcome, reports = run(tmp_path, HEAD, {"rate": -1.0})
    assert outcome.failure is Failure.CODE
    assert "'rate' = -1.0 is outside the space" in (outcome.error or "")
    assert reports == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("report(0, {'loss': 1})", "start at 1"),
        ("report(1, {'loss': 'much'})", "not a number"),
        ("report(1, 3)", "mapping"),
        ("report(1, {'loss': 1}); return 5", "mapping"),
    ],
)
def test_what_a_function_reports_is_checked(tmp_path: pathlib.Path, call: str, said: str) -> None:
    outcome, _ = run(tmp_path, evaluate(call), {"n": 1})
    assert outcome.failure is Failure.CODE
    assert said in (outcome.error or "")


def test_what_is_returned_is_the_last_word_on_the_last_step(tmp_path: pathlib.Path) -> None:
    begin = "report(1, {'loss': 3, 'a': 1}); report(2, {'loss': 2, 'a': 2})"
    outcome, reports = run(tmp_path, evaluate(begin, "return {'loss': 1}"), {"n": 1})
    assert outcome.failure is None
    assert reports[-1] == Report(2, {"loss": 1.0, "a": 2.0})


def evaluate(*lines: str) -> str:
    """A plain function with these lines."""
    return "OBJECTIVE = 'loss'\ndef evaluate(hp, report):\n    hp.Int('n', 1, 4)\n" + "".join(
        f"    {line}\n" for line in lines
    )


@pytest.mark.parametrize(
    "later",
    ["report(2, {'loss': 1.0})", "report(3, {'loss': 1.0})", "return {'loss': 1}", "1 / 0"],
)
@pytest.mark.parametrize("bad", ["nan", "-inf"])
def test_a_nan_stands_whatever_is_said_after_it(
    tmp_path: pathlib.Path, bad: str, later: str
) -> None:
    text = evaluate("report(1, {'loss': 3})", f"assert not report(2, {{'loss': '{bad}'}})", later)
    outcome, reports = run(tmp_path, text, {"n": 1})
    assert outcome == Outcome(Failure.NAN, f"loss is {bad} at step 2")
    assert [(r.step, str(r.metrics["loss"])) for r in reports] == [(1, "3.0"), (2, bad)]


def test_steps_go_forward_and_the_same_one_again_replaces(tmp_path: pathlib.Path) -> None:
    forward = ["report(1, {'loss': 3})", "report(4, {'loss': 2})", "report(4, {'loss': 5})"]
    outcome, reports = run(tmp_path, evaluate(*forward, "return {}"), {"n": 1})
    assert outcome.failure is None
    assert [(r.step, r.metrics["loss"]) for r in reports] == [(1, 3), (4, 2), (4, 5)]
    outcome, reports = run(tmp_path, evaluate(*forward, "report(3, {'loss': 1})"), {"n": 1})
    assert outcome.failure is Failure.CODE
    assert "report(3, ...) came after report(4, ...)" in (outcome.error or "")
    assert len(reports) == 3


def _arrays(count: int) -> tuple[Any, Any]:
    return np.arange(count * 2, dtype="float32").reshape(count, 2), np.arange(count)


def _labels(dataset: Any) -> list[int]:
    return [int(label) for _, labels in dataset for label in labels]


def test_a_pair_is_split_by_the_runs_seed_and_shuffled_by_the_trials() -> None:
    one = prepare((_arrays(100), _arrays(10)), 8, split_seed=1, shuffle_seed=1)
    two = prepare((_arrays(100), _arrays(10)), 8, split_seed=1, shuffle_seed=2)
    assert _labels(one.validation) == _labels(two.validation)
    assert len(_labels(one.validation)) == 10
    first, second = _labels(one.train), _labels(two.train)
    assert sorted(first) == sorted(second)
    assert first != second
    assert sorted(first + _labels(one.validation)) == list(range(100))
    assert _labels(one.train) != first, "every epoch has an order of its own"
    limited = prepare((_arrays(100), _arrays(10)), 8, 1, 1, train_examples=20)
    assert len(_labels(limited.train)) == limited.examples == 20
    with pytest.raises(UsageError, match="there are 90"):
        prepare((_arrays(100), _arrays(10)), 8, 1, 1, train_examples=91)


def test_a_mapping_of_pairs_or_datasets() -> None:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(_arrays(6)).batch(3)
    loaded = {"train": _arrays(20), "validation": dataset, "test": dataset}
    made = prepare(loaded, 4, split_seed=0, shuffle_seed=0, train_examples=12)
    assert len(_labels(made.train)) == 12
    assert _labels(made.validation) == list(range(6))
    with pytest.raises(StudyError, match="without 'test'"):
        prepare({"train": dataset, "validation": dataset}, 4, 0, 0)
    with pytest.raises(StudyError, match="--train-examples"):
        prepare({**loaded, "train": dataset}, 4, 0, 0, train_examples=12)
    with pytest.raises(StudyError, match="load_data"):
        prepare(3, 4, 0, 0)


def test_memory_growth_is_on_for_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    grown: list[tuple[str, bool]] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on))
    )
    set_up_tensorflow(seed=0)
    assert grown == [("GPU:0", True), ("GPU:1", True)]


def test_a_part_of_a_gpu_is_a_limit_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    parts: list[tuple[str, float]] = []
    monkeypatch.setenv("TUNEFLEET_GPU_MEMORY", "3584")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda gpu, found: parts.extend((gpu, part.memory_limit) for part in found),
    )
    set_up_tensorflow(seed=0)
    assert parts == [("GPU:0", 3584)]


def test_directions_are_inferred_where_the_name_tells() -> None:
    from hpo.study import infer_direction

    names = {
        "val_accuracy": Direction.MAX,
        "val_loss": Direction.MIN,
        "val_auc": Direction.MAX,
        "mse": Direction.MIN,
        "wobble": None,
    }
    assert {name: infer_direction(name) for name in names} == names


def test_weights_that_are_on_their_way_survive_another_trials_end(tmp_path: pathlib.Path) -> None:
    store = WeightsStore(tmp_path)
    coming = store.receive("0001")
    coming.write(b"half")
    left = store.receive("0000")
    left.write(b"of a trial that is over")
    store.keep_only({"0001", "0002"})
    assert [path.name[:4] for path in tmp_path.iterdir()] == ["0001"]
    coming.write(b" and half")
    assert coming.finish(hashlib.sha256(b"half and half").hexdigest())
    assert store.path("0001").read_bytes() == b"half and half"
    left.discard()
