"""Runs the tests again and again in random order beside a busy core, and counts what failed.

    python tools/stress.py --repeat 5 [--seed 7] [-- pytest's words]

A test that waits for luck fails here sooner or later. Leaves with 1 where any test failed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import multiprocessing
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, for as long as the context lasts."""
    burning = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.join()


def run_once(seed: int, words: Sequence[str], report: pathlib.Path) -> int:
    """Runs the tests in the order that ``seed`` gives; pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-p", "randomly", f"--randomly-seed={seed}"]
    command += ["--hypothesis-profile=drawn", f"--junitxml={report}"]
    return subprocess.run([*command, *words], cwd=ROOT).returncode


def failures(report: pathlib.Path) -> tuple[int, list[str]]:
    """How many tests a report has, and the names of those that failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if {"failure", "error"} & {part.tag for part in case}]
    return len(cases), [f"{case.get('classname')}::{case.get('name')}" for case in bad]


def main() -> int:
    """Repeats the tests and prints what failed how often."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="times (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the first order (default: drawn)")
    parser.add_argument("--busy", type=int, default=1, metavar="N", help="busy cores (default: 1)")
    parser.add_argument("words", nargs="*", metavar="WORD", help="what pytest is given besides")
    options = parser.parse_args()
    first = random.randrange(10**6) if options.seed is None else options.seed
    failed: collections.Counter[str] = collections.Counter()
    broken = tests = 0
    with tempfile.TemporaryDirectory() as folder, busy_cores(options.busy):
        for seed in range(first, first + options.repeat):
            print(f"stress: order {seed} (again by --repeat 1 --seed {seed})", flush=True)
            report, began = pathlib.Path(folder) / f"{seed}.xml", time.monotonic()
            status = run_once(seed, options.words, report)
            count, bad = failures(report) if report.exists() else (0, [])
            failed.update(bad)
            tests += count
            broken += status not in (0, 1) or count == 0
            seconds = time.monotonic() - began
            print(f"stress: {count} tests, {len(bad)} failed, {seconds:.0f} s", flush=True)
    for name, times in failed.most_common():
        print(f"stress: failed {times} of {options.repeat} times: {name}")
    total = sum(failed.values())
    print(
        f"stress: {options.repeat} repetitions from seed {first}: {tests} tests, {total} failures"
    )
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
