"""How much of a GPU's memory a trial may take that has only a part of the GPU."""

from __future__ import annotations

import subprocess

from hpo.errors import PlaceError

# What a process takes of a GPU besides what TensorFlow counts: CUDA's own context.
_CONTEXT_MB = 512
_ANSWER_S = 30.0


def limit_mb(share: float, gpu: str) -> int | None:
    """MB that TensorFlow may take of the GPU with this number or id; None for a whole one.

    Raises PlaceError where NVIDIA's driver does not say how much there is, or too little is
    left for a trial.
    """
    if share <= 0 or share >= 1:
        return None
    limit = int(share * _total_mb(gpu)) - _CONTEXT_MB
    if limit < _CONTEXT_MB:
        raise PlaceError(
            f"{share:g} of GPU {gpu} leaves {limit} MB for a trial, beside {_CONTEXT_MB} MB for "
            "CUDA itself: give each trial a larger part"
        )
    return limit


def _total_mb(gpu: str) -> int:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", gpu]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=_ANSWER_S, check=True)
        return int(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PlaceError(
            f"nvidia-smi does not say how much memory GPU {gpu} has ({error}), which limits a "
            "trial that has a part of it: give trials whole GPUs"
        ) from error
