"""The winner's model in Keras's own format, and beside it how it came about."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from hpo import child
from hpo.errors import RunError, StudyError, UsageError
from hpo.evaluation import metrics_on_test, restore
from hpo.inputs import digests, prepare
from hpo.provenance import command, provenance, versions
from hpo.run import Run
from hpo.runner import batch_size_of
from hpo.study import Form, StudyModule
from hpo.trial import TrialRecord
from hpo.weights import WeightsStore, on_disk
from hpo.winner import Winner

SUFFIX = ".keras"


def sidecar_of(target: pathlib.Path) -> pathlib.Path:
    """The file that says how the model in ``target`` came about."""
    return target.with_name(f"{target.name}.json")


def export_winner(
    run: Run,
    winner: Winner,
    target: pathlib.Path,
    environ: Mapping[str, str],
    debug: bool = False,
) -> dict[str, Any]:
    """Writes the model to ``target`` and its story beside it; answers the story.

    Both files appear whole, or neither. Raises UsageError for a ``target`` that cannot be
    written or is there already, RunError where there is no model to write, StudyError for
    a model that Keras does not load back, PlaceError where the disk refuses.
    """
    _check_target(target)
    weights = _weights(run, winner.record)
    with on_disk(target):
        private = tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-")
    with private as folder:
        draft = pathlib.Path(folder) / target.name
        record = winner.record
        order = {"params": record.params, "seed": record.seed, "test": winner.test}
        arguments = [str(run.folder), str(weights), str(draft), json.dumps(order)]
        observed = child.ask("hpo.export", arguments, environ, debug)
        story = provenance(run, record, observed.pop("test"), observed)
        with on_disk(target):
            sidecar_of(draft).write_text(json.dumps(story, indent=2, allow_nan=False) + "\n")
            _publish(draft, target)
    return story


def _check_target(target: pathlib.Path) -> None:
    """Raises UsageError unless ``target`` can be written."""
    if target.suffix != SUFFIX:
        raise UsageError(f"--out {target}: give a name that ends in {SUFFIX}, such as best{SUFFIX}")
    if not os.path.isdir(target.parent):
        raise UsageError(f"--out {target}: there is no folder {target.parent}: make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {target}: {target.parent} cannot be written: name another folder")
    for path in (target, sidecar_of(target)):
        try:
            path.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror}: give another name") from error
        raise UsageError(
            f"{path} is already there and is not overwritten: give another --out, or remove it"
        )


def _weights(run: Run, record: TrialRecord) -> pathlib.Path:
    """The file with the winner's weights; raises RunError where there is none."""
    if run.study.form != Form.KERAS:
        raise RunError(
            f"run {run.id} is of a function evaluate(hp, report), which makes no model: "
            f"its result is its parameters, see `launch.py best {run.id}`"
        )
    path = WeightsStore(run.weights).path(record.trial_id)
    if not path.is_file():
        raise RunError(
            f"the weights of trial {record.trial_id} were not kept in {run.weights}: "
            f"search again with `{command(run)}`"
        )
    return path


def _publish(draft: pathlib.Path, target: pathlib.Path) -> None:
    """Gives the two finished files their names: the model last, so it never lacks its story."""
    for path in (draft, sidecar_of(draft)):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    # Another process may have taken the name while the model was built.
    _check_target(target)
    sidecar_of(draft).rename(sidecar_of(target))
    try:
        draft.rename(target)
    except BaseException:
        sidecar_of(target).unlink()
        raise


def _export(folder: str, weights: str, draft: str, order: str) -> dict[str, Any]:
    """In the child: saves the model and answers what is known only here."""
    run, chosen = Run(pathlib.Path(folder)), json.loads(order)
    module = StudyModule(run.study_path())
    if not pathlib.Path(weights).is_file():
        raise RunError(f"a better trial of run {run.id} has just completed: export again")
    model = restore(run, module, chosen, weights)
    loaded = module.load_data()
    batch_size = batch_size_of(module, chosen["params"])
    limit = run.request.train_examples
    data = prepare(loaded, batch_size, run.seed, chosen["seed"], limit)
    test = chosen["test"] or metrics_on_test(model, data)
    path = pathlib.Path(draft)
    # An error names the file that was asked for, not the one in the private folder.
    with on_disk(path.parent.parent / path.name):
        model.save(path)
    _check_saved(model, path, data.test, module)
    return {
        "test": test,
        "batch_size": batch_size,
        "train_examples": data.examples,
        "precision": model.dtype_policy.name,
        "data": digests(loaded),
        "model": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "versions": versions(),
    }


def _check_saved(model: Any, path: pathlib.Path, examples: Any, module: StudyModule) -> None:
    """Raises StudyError unless Keras loads the file, and it predicts what ``model`` does."""
    import keras
    import numpy as np

    # Whoever opens the file has Keras, but not the study's classes.
    sys.modules.pop(module.module.__name__)
    try:
        saved = keras.saving.load_model(path)
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        raise StudyError(
            f"the model of {module.path.name} does not load back from a {SUFFIX} file ({why}): "
            "decorate the study's own layers and functions with "
            "keras.saving.register_keras_serializable()"
        ) from error
    x, _, _ = keras.utils.unpack_x_y_sample_weight(next(iter(examples)))
    wanted, found = (keras.tree.flatten(one.predict_on_batch(x)) for one in (model, saved))
    pairs = zip(wanted, found, strict=True)
    if not all(np.allclose(one, other, rtol=1e-4, equal_nan=True) for one, other in pairs):
        raise StudyError(
            f"the model of {module.path.name} predicts otherwise once Keras has saved and loaded "
            "it: give its own layers a get_config() with all that they were made with"
        )


if __name__ == "__main__":
    child.answer(sys.argv[1], lambda: _export(*sys.argv[2:]))
