"""What a watchdog takes for alive."""

from __future__ import annotations

from hpo._internal.process_tree import Entry
from hpo._internal.watchdog import descendants


def test_a_root_and_all_below_it_are_to_be_ended() -> None:
    found = [Entry(2, 1, 5, False), Entry(3, 2, 6, False), Entry(4, 3, 7, False)]
    assert descendants({(2, 5)}, [*found, Entry(5, 1, 8, False)]) == {2, 3, 4}


def test_another_process_that_got_the_id_of_a_root_is_none() -> None:
    assert descendants({(2, 5)}, [Entry(2, 1, 9, False)]) == set()


def test_a_zombie_that_nobody_asks_for_is_gone() -> None:
    assert descendants({(2, 5), (3, 6)}, [Entry(2, 1, 5, True), Entry(3, 1, 6, True)]) == set()
