"""Does a replay of recorded trials take as long, by its clock, as they did?

Records a table with two workers, then searches for real with the same points, and replays both:
the recording itself, from its own curves, and the real search, from the recorded ones. Prints
for each the real and the predicted seconds from the first trial's start to the last one's end.
The second differs also by how even the machine was.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpo.benchmark.nodes import Nodes  # noqa: E402
from hpo.benchmark.replay import Replay  # noqa: E402
from hpo.benchmark.table import Table  # noqa: E402
from hpo.benchmark.table_reading import read_table  # noqa: E402
from hpo.protocol import Rules  # noqa: E402
from hpo.pruners import NoPruner  # noqa: E402
from hpo.run import Run  # noqa: E402
from hpo.samplers.random import RandomSampler  # noqa: E402
from hpo.samplers.start import StartingPoints  # noqa: E402

WORKERS = 2


def main() -> None:
    """Records, searches, replays, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", default="digits")
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--options", default="", help="more for both searches, as one word")
    args = parser.parse_args()
    more = args.options.split()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        runs, table = folder / "runs", folder / "table"
        count, workers = str(args.configurations), str(WORKERS)
        words = ["record", args.study, "--configurations", count, "--seeds", "1", "--id", "rec"]
        launch(*words, "--workers", workers, "--out", str(table), "--runs", str(runs), *more)
        words = ["run", args.study, "--start", str(runs / "rec" / "points.json"), "--id", "real"]
        launch(*words, "--trials", count, "--workers", workers, "--runs", str(runs), *more)
        found = read_table(table)
        predicted = replayed(found)
        for what, run in (("the recording", "rec-s0"), ("the same points again", "real")):
            real = makespan(Run(runs / run))
            error = predicted / real - 1
            print(f"{what}: real {real:.1f} s, predicted {predicted:.1f} s, error {error:+.1%}")


def launch(*words: str) -> None:
    """Runs `launch.py`, which must succeed."""
    command = [sys.executable, "launch.py", *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def makespan(run: Run) -> float:
    """Seconds from the first trial's start to the last one's end."""
    with contextlib.closing(run.reader()) as reader:
        records = reader.records()
    first = min(r.started_at for r in records if r.started_at)
    return max(r.ended_at for r in records if r.ended_at) - first


def replayed(table: Table) -> float:
    """The same of a replay of the table's rows in their order, on as many workers."""
    study = table.study()
    sampler = StartingPoints(RandomSampler(study, 1), table.configurations)
    rules = Rules(
        table.rows, study.objective, study.direction, 1, "keras-tuner", "random", study.digest
    )
    pruner = NoPruner(study.direction, table.steps, 1)
    replay = Replay(table, sampler, pruner, rules, WORKERS, Nodes())
    trace = replay.run()
    return trace.makespan_s


if __name__ == "__main__":
    main()
