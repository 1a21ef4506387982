"""What a fork server imports once, so that each trial starts with it in memory.

The fork server only imports: TensorFlow survives a fork as long as no operation has run.
A failure is kept for the trial process to report, since the standard library would
swallow it, or end the fork server without a word.
"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sys
import warnings

from hpo import env
from hpo._internal import process_tree
from hpo.keras_tuner_parts import hyperparameters_class
from hpo.study import Form, StudyModule

module: StudyModule | None = None
failure: BaseException | None = None


def _load(path: pathlib.Path) -> StudyModule:
    loaded = StudyModule(path)
    # It takes a trial that computes little longer than all the rest.
    hyperparameters_class()
    if loaded.form == Form.KERAS:
        import h5py  # noqa: F401
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

        import hpo.inputs
        import hpo.watch  # noqa: F401
    return loaded


def ran_operations() -> bool:
    """Whether TensorFlow has run something here, after which a fork of this process hangs."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    context = eager._context if eager else None
    return context is not None and context._context_handle is not None


def study() -> StudyModule:
    """The study this process was preloaded with; raises what its import raised."""
    if failure is not None:
        raise failure
    assert module is not None
    return module


def _adopt_orphans() -> None:
    """What a trial leaves behind stays below the fork server, which ends with its agent."""
    process_tree.adopt_orphans()
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")


if env.PRELOAD in os.environ:
    if multiprocessing.parent_process() is None:
        _adopt_orphans()
    try:
        module = _load(pathlib.Path(os.environ[env.PRELOAD]))
    except BaseException as error:  # Kept for study(), see above
        failure = error
