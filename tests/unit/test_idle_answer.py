"""How long a chief holds back the answer to a worker for which it has nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hpo.fleet import wire
from hpo.fleet.oracle_service import OracleService


class BusyChief:
    """Has nothing to hand out; time passes only while somebody waits for news."""

    def __init__(self, news_after_s: float) -> None:
        self.now = 0.0
        self.asked_at: list[float] = []
        self._news_after_s = news_after_s

    async def apply(self, event: Any) -> None:
        self.asked_at.append(self.now)

    async def something_changed(self, timeout_s: float) -> None:
        self.now += min(timeout_s, self._news_after_s)


@pytest.mark.parametrize(
    ("news_after_s", "asked_at"), [(9.0, [0.0, 1.0]), (0.25, [0.0, 0.25, 0.5, 0.75, 1.0])]
)
def test_a_worker_for_which_there_is_nothing_is_answered_after_a_second(
    news_after_s: float, asked_at: list[float]
) -> None:
    chief = BusyChief(news_after_s)
    service = OracleService(chief)  # type: ignore[arg-type]

    async def ask() -> Any:
        asyncio.get_running_loop().time = lambda: chief.now  # type: ignore[method-assign]
        return await service.hand_out("w", "1", None, wire.to_trial)  # type: ignore[arg-type]

    assert asyncio.run(ask()) == wire.bare_trial(wire.types.IDLE)
    # Whatever happens meanwhile that is not for it.
    assert chief.asked_at == asked_at
