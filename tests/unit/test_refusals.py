"""How much of what is refused comes into a chief's log."""

from __future__ import annotations

import types

import pytest

from hpo.fleet import refusals


class Minutes:
    """The time as the log of refusals sees it; it stands still until it is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Minutes:
    made = Minutes()
    monkeypatch.setattr(refusals, "time", types.SimpleNamespace(monotonic=made.monotonic))
    return made


def test_a_reason_is_said_once_a_minute_to_each_peer_and_the_rest_counted(
    clock: Minutes, caplog: pytest.LogCaptureFixture
) -> None:
    log = refusals.Refusals()
    for seconds in (1.0, 30.0, 61.0):
        clock.now = seconds
        for port in range(200):
            log.note(f"here:{port}", "no token")
    log.note("there:1", "no token")
    log.note("here:1", "no TLS")
    log.say_rest()
    assert caplog.messages == [
        "refused here:0: no token",
        "refused 399 more of the same or others",
        "refused here:0: no token",
        "refused there:1: no token",
        "refused here:1: no TLS",
        "refused 199 more of the same or others",
    ]


def test_strangers_at_a_thousand_addresses_get_few_lines(
    clock: Minutes, caplog: pytest.LogCaptureFixture
) -> None:
    log = refusals.Refusals()
    for number in range(1000):
        log.note(f"host{number}:1", "no token")
    log.say_rest()
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "refused 980 more of the same or others"
