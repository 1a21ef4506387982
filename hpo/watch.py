"""The callback through which a Keras trial speaks. Imported only where Keras is."""

from __future__ import annotations

import math
import pathlib
import time
from typing import Any

import keras

from hpo import checkpoint
from hpo.checkpoint import Progress
from hpo.errors import StudyError
from hpo.link import Link, TrialOrder
from hpo.study import metrics_of
from hpo.trial import Answer, Report


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports each epoch, keeps the best weights, saves the trial and ends it on a NaN.

    It stands behind the study's callbacks, the ``others``, saves what they count with the
    model, and lets them count on in a trial that goes on. Without ``saves``, where a loop is
    the study's own, nobody could go on from a checkpoint and none is made.
    """

    def __init__(
        self,
        order: TrialOrder,
        link: Link,
        others: list[Any],
        scratch: pathlib.Path,
        saves: bool,
    ) -> None:
        super().__init__()
        self.callbacks = [*others, self]
        self.progress = Progress(order.trial_id)
        self._order = order
        self._link = link
        self._others = others
        self._scratch = scratch
        self._saves = saves
        self.failure: str | None = None
        self.suspended = False
        # Told to end early: nobody goes on from it, and nobody wants its weights.
        self.stopped = False
        self._counted: list[dict[str, Any]] = []
        self._saved_epoch, self._saved_at = 0, time.monotonic()

    def go_on_from(self, path: pathlib.Path, model: Any) -> bool:
        """Whether the checkpoint fits; if so the model is as it was."""
        try:
            found, self._counted = checkpoint.restore(path, model)
        except StudyError as error:
            print(f"{error}; the trial starts anew", flush=True)
            return False
        if found.trial_id == self._order.trial_id:
            self.progress = found
            self._link.resumed(found.epoch)
        else:
            # The values of the trial that this one goes on from are not its own.
            self.progress.epoch = found.epoch
        self._saved_epoch = found.epoch
        return True

    def on_train_begin(self, logs: Any = None) -> None:
        if self._counted:
            checkpoint.restore_callbacks(self._others, self._counted)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        metrics = metrics_of(logs or {}, "Keras")
        self.progress.epoch = epoch + 1
        answer = self._link.report(Report(epoch + 1, metrics))
        value = metrics.get(self._order.objective)
        for name in (self._order.objective, "loss"):
            if not math.isfinite(metrics.get(name, 0.0)):
                self.failure = f"{name} is {metrics[name]} after epoch {epoch + 1}"
        if self.failure or answer is Answer.STOP:
            self.model.stop_training = self.stopped = True
            return
        if value is not None and self._order.direction.better(value, self.progress.best):
            self.progress.best, self.progress.best_weights = value, self.model.get_weights()
        if not self._saves:
            return
        # What stands before this callback, or the number of epochs, may end the training here.
        self.progress.ended = self.model.stop_training or epoch + 1 >= self.params["epochs"]
        since = time.monotonic() - self._saved_at
        if self._order.schedule.due(epoch + 1 - self._saved_epoch, since):
            self._save()
        if answer is Answer.SUSPEND and not self.progress.ended:
            self.model.stop_training = self.suspended = True

    def on_train_end(self, logs: Any = None) -> None:
        wanted = self._saves and (self._order.schedule.last or self.suspended)
        if wanted and self.progress.epoch > self._saved_epoch and not self.stopped:
            self._save()

    def _save(self) -> None:
        path = self._scratch / f"{self._order.trial_id}-{self.progress.epoch}.checkpoint"
        checkpoint.save(path, self.model, self._others, self.progress)
        self._saved_epoch, self._saved_at = self.progress.epoch, time.monotonic()
        self._link.saved(path, self.progress.epoch)
