"""A trial that goes on from a checkpoint ends as if nothing had happened."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from hpo.checkpoint_store import CheckpointStore
from hpo.schedule import Schedule
from hpo.trial import Answer
from tests.support.preloaded_python import PreloadedPython

# In a process of its own: what a trial leaves in TensorFlow would be in the next one's way.
SCRIPT = """
import dataclasses, json, pathlib, sys
from hpo.discovery import discover
from hpo.link import TrialOrder
from hpo.runner import run_trial
from hpo.schedule import Schedule
from hpo.study import StudyModule
from hpo.trial import Answer
from tests.support.trial_listener import Listener

folder, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
module = StudyModule(folder / "study_under_test.py")
order = TrialOrder(
    trial_id=options["trial_id"], params=options["params"], seed=3, split_seed=4,
    objective=module.objective, direction=module.direction, epochs=options["epochs"],
    train_examples=200, space=discover(module.build_model),
    schedule=Schedule(**options["schedule"]),
    checkpoint=pathlib.Path(options["checkpoint"]) if options["checkpoint"] else None,
)
listener = Listener(options["patience"], Answer(options["at_last"]))
outcome = run_trial(module, order, listener, folder)
print(json.dumps({
    "failure": outcome.failure, "error": outcome.error,
    "reports": [[r.step, r.metrics] for r in listener.reports],
    "checkpoints": {e: str(p) for e, p in listener.checkpoints.items()},
    "went_on_after": listener.went_on_after, "suspended": outcome.suspended,
    "weights": str(outcome.weights) if outcome.weights else None,
}))
"""

STUDY = """
import numpy as np

EPOCHS = 6

def build_model(hp):
    import keras
    model = keras.Sequential([
        keras.Input((8,)),
        keras.layers.Dense(hp.Int("units", 4, 8), activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(3, activation="softmax"),
    ])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy",
                  metrics=["accuracy"])
    return model

def load_data():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 8)), rng.integers(0, 3, 400)
    return (x[:300], y[:300]), (x[300:], y[300:])

def callbacks(hp):
    import keras
    return [keras.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1)]
"""


@dataclasses.dataclass
class Trial:
    """Trials of the study in ``folder``, each in a process of its own."""

    folder: pathlib.Path
    python: PreloadedPython

    def run(self, **options: Any) -> dict[str, Any]:
        defaults = {
            "trial_id": "0000",
            "params": {"units": 6},
            "epochs": 6,
            "patience": 99,
            "at_last": 0,
        }
        schedule = dataclasses.asdict(options.pop("schedule", Schedule()))
        chosen = {**defaults, "checkpoint": None, "schedule": schedule, **options}
        done = self.python.run(SCRIPT, str(self.folder), json.dumps(chosen))
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        answer["said"] = done.stdout
        return answer


@pytest.fixture
def trial(tmp_path: pathlib.Path, preloaded: PreloadedPython) -> Trial:
    (tmp_path / "study_under_test.py").write_text(STUDY)
    return Trial(tmp_path, preloaded)


def test_a_trial_goes_on_to_the_last_digit(trial: Trial) -> None:
    """Weights, optimizer, dropout, the order of the data and what the callbacks count."""
    whole = trial.run(schedule=Schedule(epochs=2))
    assert list(whole["checkpoints"]) == ["2", "4", "6"]
    for epoch in ("2", "4"):
        rest = trial.run(checkpoint=whole["checkpoints"][epoch])
        assert rest["went_on_after"] == int(epoch)
        assert rest["reports"] == whole["reports"][int(epoch) :]
        assert rest["weights"], "the best epoch may lie before the checkpoint"


def test_the_best_epoch_before_a_checkpoint_is_not_forgotten(trial: Trial) -> None:
    whole = trial.run(schedule=Schedule(epochs=1))
    kept = _arrays(whole["weights"])
    last = trial.run(checkpoint=whole["checkpoints"]["6"])
    assert last["reports"] == []
    found = _arrays(last["weights"])
    assert found.keys() == kept.keys()
    assert all(np.array_equal(found[name], kept[name]) for name in kept)


def _arrays(path: str) -> dict[str, Any]:
    """Everything in a file of weights, by where it lies."""
    arrays: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(note)
    assert arrays
    return arrays


def test_another_trial_goes_on_from_the_model_and_not_from_its_values(trial: Trial) -> None:
    first = trial.run(epochs=2, schedule=Schedule(last=True))
    promoted = trial.run(trial_id="0009", epochs=4, checkpoint=first["checkpoints"]["2"])
    assert promoted["went_on_after"] is None
    assert [step for step, _ in promoted["reports"]] == [3, 4]


def test_nobody_goes_on_from_a_trial_that_was_ended_early(trial: Trial) -> None:
    stopped = trial.run(patience=3, schedule=Schedule(last=True))
    assert stopped["checkpoints"] == {}


@pytest.mark.parametrize("harm", ["torn", "other", "empty"])
def test_a_checkpoint_that_does_not_fit_costs_a_new_start_only(trial: Trial, harm: str) -> None:
    first = trial.run(epochs=2, schedule=Schedule(epochs=1))
    path = pathlib.Path(first["checkpoints"]["1"])
    if harm == "torn":
        path.write_bytes(path.read_bytes()[:-700])
    elif harm == "empty":
        path.write_bytes(b"")
    params = {"units": 5 if harm == "other" else 6}
    again = trial.run(epochs=2, params=params, checkpoint=str(path))
    assert "the trial starts anew" in again["said"]
    assert [step for step, _ in again["reports"]] == [1, 2]
    if harm != "other":
        assert again["reports"] == first["reports"]


def test_a_training_that_was_over_is_not_gone_on_with(trial: Trial) -> None:
    """Early stopping ended it in the epoch that was saved: one more would be one too many."""
    study = trial.folder / "study_under_test.py"
    study.write_text(STUDY.replace('"val_loss", patience=4', '"val_loss", patience=1, min_delta=9'))
    whole = trial.run(schedule=Schedule(epochs=1))
    last = str(len(whole["reports"]))
    assert int(last) < 6, "it was stopped early"
    again = trial.run(checkpoint=whole["checkpoints"][last])
    assert (again["reports"], again["went_on_after"]) == ([], int(last))
    assert again["weights"]


OWN_FIT = """
def fit(hp, model, data, callbacks):
    model.fit(data.train, validation_data=data.validation, epochs=3, callbacks=callbacks,
              verbose=0)
"""


def test_a_fit_of_ones_own_is_never_saved_and_goes_on(trial: Trial) -> None:
    """Nobody could go on from its checkpoint, so a worker that has to go lets it train."""
    (trial.folder / "study_under_test.py").write_text(STUDY + OWN_FIT)
    done = trial.run(schedule=Schedule(epochs=1), patience=1, at_last=Answer.SUSPEND)
    assert done["checkpoints"] == {}
    assert [step for step, _ in done["reports"]] == [1, 2, 3]
    assert done["weights"] and not done["suspended"]


def test_a_trial_that_is_told_so_saves_itself_and_leaves(trial: Trial) -> None:
    left = trial.run(patience=2, at_last=Answer.SUSPEND)
    assert left["suspended"] and list(left["checkpoints"]) == ["2"]
    assert [step for step, _ in left["reports"]] == [1, 2]
    at_the_end = trial.run(epochs=2, patience=2, at_last=Answer.SUSPEND)
    assert not at_the_end["suspended"], "it was done anyway"


def test_a_checkpoint_holds_no_pickle(trial: Trial) -> None:
    done = trial.run(epochs=1, schedule=Schedule(epochs=1))
    with np.load(done["checkpoints"]["1"], allow_pickle=False) as found:
        assert all(found[name].dtype != object for name in found)


def test_what_a_killed_chief_had_received_half_goes(tmp_path: pathlib.Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", cap_bytes=100)
    store.receive("0001", 3).write(b"half of it")
    whole = store.receive("0002", 4)
    whole.write(b"all")
    assert whole.finish(hashlib.sha256(b"all").hexdigest())
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    again = CheckpointStore(tmp_path / "checkpoints", cap_bytes=100)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0002.4.checkpoint"]
    assert again.trials() == ["0002"]


def test_room_goes_to_the_most_precious(tmp_path: pathlib.Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", cap_bytes=25)
    for trial_id, epoch in (("0001", 1), ("0001", 10), ("0001", 9), ("0002", 1), ("0003", 1)):
        incoming = store.receive(trial_id, epoch)
        incoming.write(bytes(10))
        assert incoming.finish(hashlib.sha256(bytes(10)).hexdigest())
    assert store.keep(["0003", "0001", "0002"]) == ["0002"]
    assert sorted(store.trials()) == ["0001", "0003"]
    newest = store.latest("0001")
    assert newest is not None and newest.name == "0001.10.checkpoint"
    assert store.keep([]) == [] and store.empty


def test_when_it_is_time() -> None:
    assert not Schedule().due(99, 1e9)
    assert Schedule(epochs=2).due(2, 0.0) and not Schedule(epochs=2).due(1, 1e9)
    assert Schedule(seconds=60).due(1, 60.0) and not Schedule(seconds=60).due(99, 59.0)
