"""How a winner came about: what its model alone cannot tell, as JSON (see docs/export.md)."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from hpo.child import ROOT
from hpo.json_numbers import finite
from hpo.run import Run
from hpo.study import STUDIES_DIR
from hpo.trial import Metrics, TrialRecord, iso_utc

_CPU_DEVICE = re.compile(r"cpu:\d+(,\d+)*")


def provenance(
    run: Run, record: TrialRecord, test: Metrics, observed: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the model of ``record`` comes from.

    ``observed`` is what only a process with the study, its data and TensorFlow knows.
    """
    return {
        "run": run.id,
        "trial_id": record.trial_id,
        "attempt": record.attempt,
        "params": record.params,
        "objective": run.study.objective,
        "direction": run.study.direction.value,
        "value": record.value,
        "test": finite(test),
        "seeds": {"run": run.seed, "trial": record.seed},
        "engine": record.engine,
        "sampler": record.sampler,
        "sampler_impl": record.sampler_impl,
        "pruner": run.request.pruner,
        "study": {
            "name": run.study.name,
            "file": pathlib.Path(run.request.study).name,
            "digest": record.study_digest,
        },
        **_training(run, record),
        **observed,
        "start": run.request.start,
        "command": command(run),
    }


def _training(run: Run, record: TrialRecord) -> dict[str, Any]:
    reader = run.reader()
    try:
        last = reader.last_report(record.trial_id, record.attempt)
    finally:
        reader.close()
    return {
        "epochs": last.step if last else None,
        "best_epoch": record.best_step,
        "fit_s": None if record.fit_s is None else round(record.fit_s, 3),
        "started_at": iso_utc(record.started_at),
        "ended_at": iso_utc(record.ended_at),
        "device": record.device,
        "threads": _threads(record.device or ""),
    }


def _threads(device: str) -> int | None:
    """A worker has a thread for each processor it is pinned to; None where none are named."""
    cpus = device.partition(" ")[0]
    return cpus.count(",") + 1 if _CPU_DEVICE.fullmatch(cpus) else None


def command(run: Run) -> str:
    """The command line that searches the same again.

    A study that was edited since is meant as it was: by the copy in the run's folder.
    Points to start from are named as a file that whoever types this makes from ``start``.
    """
    path = run.study_path().resolve()
    options = {
        "engine": run.request.engine,
        "sampler": run.request.sampler,
        "pruner": run.request.pruner,
        # What was asked first may have been raised by `resume`.
        "trials": run.wanted,
        "epochs": run.request.epochs,
        "train-examples": run.request.train_examples,
        "seed": run.seed,
        "start": "start.json" if run.request.start else None,
        # Its share of the processors is a trial's number of threads, which changes results.
        "workers": run.workers,
    }
    words = ["python", "launch.py", "run"]
    words.append(run.study.name if path.parent == STUDIES_DIR else str(path))
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    for name, value in run.settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def versions() -> dict[str, str | None]:
    """The versions in this process, which has TensorFlow loaded."""
    loaded = {name: sys.modules[name].__version__ for name in ("tensorflow", "keras", "numpy")}
    return {
        "python": platform.python_version(),
        **loaded,
        # To import it would take seconds.
        "keras-tuner": importlib.metadata.version("keras-tuner"),
        "tunefleet": _commit(),
    }


def _commit() -> str | None:
    """The project's commit, with "-dirty" where files differ from it; None outside of git."""
    if not (ROOT / ".git").exists():
        # A repository around the project would answer with a commit of its own.
        return None
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*words, "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
