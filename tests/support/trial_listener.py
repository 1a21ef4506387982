"""Somebody for a trial to talk to, without processes between."""

from __future__ import annotations

import dataclasses
import pathlib

from hpo.trial import Answer, Report


@dataclasses.dataclass
class Listener:
    """Hears what a trial says; lets it go on for ``patience`` reports."""

    patience: int = 20
    at_last: Answer = Answer.STOP
    reports: list[Report] = dataclasses.field(default_factory=list)
    checkpoints: dict[int, pathlib.Path] = dataclasses.field(default_factory=dict)
    went_on_after: int | None = None

    def report(self, report: Report) -> Answer:
        self.reports.append(report)
        return Answer.GO_ON if len(self.reports) < self.patience else self.at_last

    def wanted(self, value: float) -> bool:
        return True

    def saved(self, path: pathlib.Path, epoch: int) -> None:
        self.checkpoints[epoch] = path

    def resumed(self, epoch: int) -> None:
        self.went_on_after = epoch
