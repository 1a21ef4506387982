"""The three published systems: what each ran, and the figures that it states.

Theirs are of Fashion-MNIST with 60,000 training and 10,000 test images, a tenth of the first
for validation. Where a publication does not say how many trials it ran, ``trials`` is ours.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """One search of one system; None for what is not stated."""

    study: str
    sampler: str
    trials: int | None
    trials_stated: bool
    test_accuracy: float | None
    test_loss: float | None = None
    val_accuracy: float | None = None

    @property
    def name(self) -> str:
        """A name for its run."""
        return f"{self.study}-{self.sampler.removeprefix('kt-')}"


PUBLISHED = (
    Published("cnn-l2", "kt-random", 10, False, 0.91),
    Published("cnn-dense", "kt-bayesian", 12, False, 0.8959, 0.28),
    Published("cnn-dense", "kt-grid", None, False, 0.8934, 0.30),
    Published("cnn-dense", "kt-random", 10, False, 0.8956, 0.28),
    Published("cnn-dropout", "kt-random", 10, True, 0.9010, None, 0.9068),
    Published("cnn-dropout", "kt-bayesian", 10, True, 0.8987, None, 0.9064),
)
