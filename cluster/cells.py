"""A search as a child of another verb: `launch.py` as a person would type it."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from hpo._internal.process_tree import watched

LAUNCH = pathlib.Path(__file__).resolve().parent.parent / "launch.py"


def launch(arguments: Sequence[str], log: pathlib.Path) -> int:
    """Runs `launch.py` with ``arguments``; what it says is added to ``log``.

    Answers its exit status. A signal that ends this process lets the search end as it would
    for itself; where this process is killed it goes on, and the same call attaches to it.
    """
    with log.open("a") as out:
        child = watched(
            subprocess.Popen(
                [sys.executable, str(LAUNCH), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        )
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal's signal reached the child too: it drains, and a second one ends it.
            child.wait()
            raise
        except BaseException:
            child.terminate()
            child.wait()
            raise


def search(arguments: Sequence[str], runs: pathlib.Path, log: pathlib.Path) -> int:
    """Searches here by `launch.py run` with ``arguments``; see :func:`launch`."""
    return launch(["run", *arguments, "--runs", str(runs)], log)


def last_words(log: pathlib.Path) -> str:
    """The last line that was said, for a message about a search that failed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("launch.py: ")]
    return (said or lines or ["it said nothing"])[-1].removeprefix("launch.py: ")


def how_to_train(args: argparse.Namespace) -> list[str]:
    """The options of another verb that its searches are started with."""
    words: list[str] = []
    options = {
        "--epochs": args.epochs,
        "--train-examples": args.train_examples,
        "--gpus-per-worker": args.gpus_per_worker,
        "--data-dir": args.data_dir,
    }
    for option, value in options.items():
        words += [] if value is None else [option, str(value)]
    return words
