"""How long a search may run, in hours and in GPU-hours; only while trials run does it count."""

from __future__ import annotations

import dataclasses

from hpo.protocol import Clock, Rules, Spent

# So much may be forgotten when a chief is killed.
_STORE_EACH_S = 5.0


class Budget:
    """What was spent, over all sessions of a run, and whether that is all there is."""

    def __init__(self, rules: Rules, clock: Clock, spent: Spent) -> None:
        self.spent = spent
        self._rules = rules
        self._clock = clock
        self._stored = spent
        self._looked = clock.monotonic()

    def charge(self, running: int, gpus: int) -> None:
        """The time since the last charge, in which ``running`` trials held ``gpus`` GPUs."""
        now = self._clock.monotonic()
        # A chief that stood still for longer does not know what ran meanwhile.
        passed = min(now - self._looked, self._rules.lease_s)
        self._looked = now
        if running:
            spent = self.spent
            self.spent = Spent(spent.running_s + passed, spent.gpu_s + passed * gpus)

    def to_store(self) -> Spent | None:
        """What was spent, when it is time to write it down."""
        if self.spent.running_s - self._stored.running_s < _STORE_EACH_S and not self.exceeded:
            return None
        if self.spent == self._stored:
            return None
        self._stored = dataclasses.replace(self.spent)
        return self._stored

    @property
    def exceeded(self) -> str:
        """Which limit is reached, in words; "" for none."""
        hours, gpu_hours = self.spent.running_s / 3600, self.spent.gpu_s / 3600
        if self._rules.max_hours is not None and hours >= self._rules.max_hours:
            return f"trials ran for {hours:.3g} hours: --max-hours {self._rules.max_hours:g}"
        if self._rules.max_gpu_hours is not None and gpu_hours >= self._rules.max_gpu_hours:
            limit = self._rules.max_gpu_hours
            return f"trials took {gpu_hours:.3g} GPU-hours: --max-gpu-hours {limit:g}"
        return ""
