"""When a trial is saved, so that another attempt can go on from there."""

from __future__ import annotations

import dataclasses
from typing import Self

from hpo.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """At the end of so many epochs, or of an epoch after so many seconds.

    Never, where both are None. With ``last`` also when a trial has ended: others go on
    from it.
    """

    epochs: int | None = None
    seconds: float | None = None
    last: bool = False

    def due(self, epochs: int, seconds: float) -> bool:
        """Whether it is time, so long after the last one."""
        if self.epochs is not None:
            return epochs >= self.epochs
        return self.seconds is not None and seconds >= self.seconds

    @classmethod
    def parse(cls, text: str) -> Self:
        """A number of epochs, minutes such as ``2m``, or ``never``; raises UsageError."""
        number = text.removesuffix("m")
        if text == "never":
            return cls()
        if not number.isdecimal() or int(number) < 1:
            raise UsageError(
                f"--checkpoint-every {text!r}: give a number of epochs, minutes such as 2m, "
                "or never"
            )
        count = int(number)
        return cls(epochs=count) if text == number else cls(seconds=60.0 * count)


NEVER = Schedule()
EVERY_TWO_MINUTES = Schedule(seconds=120.0)
