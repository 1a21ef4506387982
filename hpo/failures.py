"""What an attempt that failed means for its trial, and for the search."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping

from hpo.protocol import Rules
from hpo.trial import Failure

# What differs between two occurrences of one defect: numbers, addresses, quoted values.
_VARYING = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?(e[+-]?\d+)?|'[^']*'|\"[^\"]*\"", re.IGNORECASE)


def may_retry(rules: Rules, failure: Failure, earlier: Mapping[Failure, int]) -> bool:
    """Whether a trial that failed so is tried again, after ``earlier`` attempts that failed.

    Not after a NaN or a time limit, which would only show again. Attempts that were lost
    with their worker are counted elsewhere.
    """
    allowed = {Failure.CODE: rules.code_retries, Failure.OOM: rules.oom_retries}
    return earlier.get(failure, 0) < allowed.get(failure, 0)


def headline(error: str | None) -> str:
    """The line of an error that says what happened; of a traceback its last exception."""
    lines = (error or "").strip().splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    for line in lines[starts[-1] + 1 :] if starts else lines:
        if line and not line[0].isspace():
            return line
    return lines[0] if lines else ""


class RepeatedErrors:
    """Counts the trials that failed with the same error: a defect fails every trial alike."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._trials: dict[str, set[str]] = collections.defaultdict(set)

    def noted(self, trial_id: str, error: str | None) -> bool:
        """Notes the error of a trial; whether so many trials have had it that it is enough."""
        trials = self._trials[_VARYING.sub("", headline(error))]
        trials.add(trial_id)
        return len(trials) >= self._limit
