"""What a study's ``evaluate`` calls as ``report``, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import StudyError
from hpo.link import TrialOrder
from hpo.study import metrics_of
from hpo.trial import Answer, Metrics, Report

# Called after each step; answers whether to go on.
ReportFn = Callable[[Report], Answer]


def checked(step: Any, metrics: Any) -> Report:
    """What was reported; raises StudyError where it is no report."""
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise StudyError(f"report(step={step!r}, ...): steps are integers that start at 1")
    return Report(step, metrics_of(metrics, f"report({step}, ...)"))


class Told:
    """Passes on what is reported, in order. The last word on a step counts, except on a NaN.

    That ends the trial, for the search has acted on it: what comes later is not passed on,
    or the record of a failed trial would show no reason for its failure.
    """

    def __init__(self, order: TrialOrder, report: ReportFn) -> None:
        self.failure: str | None = None
        self._order = order
        self._report = report
        self._last: Report | None = None

    def __call__(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Answers whether to go on after ``step``, which may be the one before once more."""
        report = checked(step, metrics)
        if self._last and step < self._last.step:
            raise StudyError(
                f"report({step}, ...) came after report({self._last.step}, ...): report steps in "
                "order; the same step again replaces what was said of it"
            )
        return self._pass_on(report) and not self._is_last(step)

    def last_word(self, final: Metrics) -> None:
        """What was returned: it counts for the last step that was reported."""
        if self._last is None:
            raise StudyError("evaluate(hp, report) ended without a report: call report(1, metrics)")
        metrics = self._last.metrics | final
        if metrics != self._last.metrics:
            self._pass_on(Report(self._last.step, metrics))

    def _is_last(self, step: int) -> bool:
        return self._order.epochs is not None and step >= self._order.epochs

    def _pass_on(self, report: Report) -> bool:
        self._last = report
        if self.failure:
            return False
        goes_on = bool(self._report(report))
        value = report.metrics.get(self._order.objective, 0.0)
        if not math.isfinite(value):
            self.failure = f"{self._order.objective} is {value} at step {report.step}"
        return goes_on and self.failure is None
