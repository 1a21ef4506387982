"""A run's status from what its place alone knows: no ledger was read, so nothing is counted."""

from __future__ import annotations

import pathlib
from typing import Any

from hpo.run import SearchRequest
from hpo.study import study_name
from hpo.trial import Failure, TrialState

# What `list` shows of a status.
SHORT = ("id", "study", "engine", "sampler", "pruner", "state", "trials", "best", "elapsed_s")


def outline(run_id: str, state: str, request: SearchRequest | None) -> dict[str, Any]:
    """The object that ``status --json`` prints, with null for all that only a ledger says."""
    return {
        "id": run_id,
        "study": request and study_name(pathlib.PurePath(request.study)),
        "engine": request and request.engine,
        "sampler": request and request.sampler,
        "pruner": request and request.pruner,
        "state": state,
        "trials": {
            "wanted": request and request.trials,
            **{kind.value.lower(): None for kind in TrialState},
        },
        "failures": {kind.value: None for kind in Failure},
        "best": None,
        "elapsed_s": None,
        "utilization": None,
        "chief": {"host": None, "pid": None, "address": None},
        "workers": [],
    }
