"""How the nodes of a simulated cluster behave: each figure is drawn from a stated distribution."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from hpo.errors import UsageError
from hpo.registry import suggest

# By kind: what its numbers are, and a value from them.
_KINDS: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "const": (("VALUE",), lambda rng, value: value),
    "uniform": (("LOW", "HIGH"), lambda rng, low, high: rng.uniform(low, high)),
    "exp": (("MEAN",), lambda rng, mean: rng.expovariate(1 / mean) if mean else 0.0),
    "lognormal": (
        ("MEDIAN", "SIGMA"),
        lambda rng, median, sigma: median * math.exp(rng.gauss(0.0, sigma)),
    ),
}


@dataclasses.dataclass(frozen=True)
class Draw:
    """A distribution of numbers that are not negative, such as ``lognormal:1,0.2``."""

    kind: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Draw:
        """What was typed; a bare number is a constant. Raises UsageError."""
        kind, colon, rest = text.partition(":")
        if not colon:
            kind, rest = "const", text
        if kind not in _KINDS:
            raise UsageError(f"{text!r}: unknown distribution {kind!r}: {suggest(kind, _KINDS)}")
        names = _KINDS[kind][0]
        form = f"{kind}:{','.join(names)}"
        try:
            numbers = tuple(map(float, rest.split(",")))
        except ValueError:
            raise UsageError(f"{text!r} is no distribution: give {form}") from None
        if len(numbers) != len(names) or not all(math.isfinite(n) and n >= 0 for n in numbers):
            raise UsageError(f"{text!r}: give {form}, with numbers from 0")
        return cls(kind, numbers)

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(f'{number:g}' for number in self.numbers)}"

    def of(self, *key: object) -> float:
        """The number that belongs to ``key``: the same for every search that asks for it."""
        rng = random.Random(":".join(map(str, key)))
        return _KINDS[self.kind][1](rng, *self.numbers)


@dataclasses.dataclass(frozen=True)
class Nodes:
    """The nodes of a replay, one worker each, and what their chief costs.

    ``start_s`` is how long a node takes until its worker joins, ``speed`` how much faster
    than the table's it trains, ``preempted_after_s`` how long it lives (None: for ever); then
    another takes its place. A trial that was lost goes on from its last checkpoint, of which
    there is one after each step that ends ``checkpoint_s`` or more after the one before.
    ``call_s`` is what each call costs the chief, besides what the search's own code takes.
    A suggestion costs what it takes here, or ``suggestion_s`` where that is given: then a
    replay comes out the same every time.
    """

    start_s: Draw = Draw("const", (0.0,))
    speed: Draw = Draw("const", (1.0,))
    preempted_after_s: Draw | None = None
    checkpoint_s: float = 120.0
    lease_s: float = 30.0
    call_s: float = 0.001
    suggestion_s: float | None = None

    def described(self) -> str:
        """In words, for a report."""
        lives = f"live {self.preempted_after_s} s" if self.preempted_after_s else "are never lost"
        thought = "as measured" if self.suggestion_s is None else f"{self.suggestion_s:g} s"
        return (
            f"nodes start in {self.start_s} s, train at {self.speed} times the table's speed and "
            f"{lives}; a call costs the chief {self.call_s:g} s, a suggestion {thought}"
        )
