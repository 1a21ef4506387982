"""The same search by a stock KerasTuner script and by TuneFleet, one after the other.

    python benchmarks/stock_keras_tuner.py [--rounds 2]

Eight trials of cnn-dropout on 18,000 training images, 3 epochs each, a chief and two
workers. Measured is the time from the start of the command to the chief's exit. Each side
draws its own eight points from the same space; the order changes from round to round.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hpo.run import Run  # noqa: E402

TRIALS, EXAMPLES, EPOCHS = 8, 18_000, 3


def tunefleet(folder: pathlib.Path, seed: int) -> float:
    """Seconds to the exit of TuneFleet's chief."""
    began = time.time()
    command = [sys.executable, "launch.py", "run", "cnn-dropout", "--id", "mine"]
    options = {"trials": TRIALS, "train-examples": EXAMPLES, "epochs": EPOCHS, "seed": seed}
    for name, value in {**options, "workers": 2, "runs": folder}.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    run = Run(folder / "mine")
    reader = run.reader()
    ended = float(reader.sessions()[-1]["ended_at"])
    completed = [a.record for a in reader.attempts() if a.record.value is not None]
    assert len(completed) == TRIALS, f"{len(completed)} of {TRIALS} trials completed"
    return ended - began


def stock(folder: pathlib.Path, seed: int) -> float:
    """Seconds to the exit of KerasTuner's chief."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    began = time.time()
    processes = []
    for role in ("chief", "worker-0", "worker-1"):
        variables = {
            "KERASTUNER_TUNER_ID": role,
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": port,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PYTHONPATH": str(ROOT),
        }
        script = str(ROOT / "benchmarks" / "stock_script.py")
        arguments = [str(folder), str(TRIALS), str(EXAMPLES), str(EPOCHS), str(seed)]
        processes.append(
            subprocess.Popen(
                [sys.executable, script, *arguments],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], "a stock process failed"
    done = [json.loads(p.read_text())["status"] for p in folder.glob("stock/trial_*/trial.json")]
    assert done == ["COMPLETED"] * TRIALS, done
    return float(outputs[0].rpartition("left at ")[2]) - began


def main() -> None:
    """Prints each round's seconds and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {"stock": [], "tunefleet": []}
    sides = [("stock", stock), ("tunefleet", tunefleet)]
    for number in range(rounds):
        for name, measure in sides if number % 2 == 0 else reversed(sides):
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(measure(pathlib.Path(folder), seed=7 + number))
            print(f"round {number + 1}: {name:9} {seconds[name][-1]:6.1f} s", flush=True)
    stock_s, own_s = (statistics.median(seconds[name]) for name in ("stock", "tunefleet"))
    print(f"stock KerasTuner / TuneFleet: {stock_s:.1f} s / {own_s:.1f} s = {stock_s / own_s:.2f}")


if __name__ == "__main__":
    main()
