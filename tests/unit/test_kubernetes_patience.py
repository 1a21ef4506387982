"""A cluster is given up where it stands still, and not where it is slow."""

from __future__ import annotations

import time

import pytest

from cluster.launchers.kubernetes.following import may_come
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.standing import Standing


class Clock:
    """A clock that goes on as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_it_is_over_once_nothing_changes(clock: Clock) -> None:
    patience = Patience(60)
    assert not patience.is_over("a")
    clock.now += 59
    assert not patience.is_over("a") and patience.quiet_for(59)
    clock.now += 1
    assert patience.is_over("a")


def test_each_change_begins_it_anew(clock: Clock) -> None:
    patience = Patience(60)
    for number in range(100):
        assert not patience.is_over(number)
        clock.now += 59
    clock.now += 1
    assert patience.is_over(99)


def test_none_at_all_is_over_at_once() -> None:
    assert Patience(0).is_over(())


@pytest.mark.parametrize(
    ("which", "comes"),
    [("chief", True), ("worker-1", True), ("worker-2", False), ("viewer", False), ("", False)],
)
def test_whose_pods_the_cluster_makes(which: str, comes: bool) -> None:
    standing = Standing({"spec": {}}, {"spec": {"parallelism": 2}}, ())
    assert may_come(standing, which) is comes
    assert not may_come(Standing({"spec": {"suspend": True}}, standing.worker, ()), which)
    assert not may_come(Standing(None, None, ()), which)
