"""What `ray_overhead.py` compares with: plain Ray Tune with OptunaSearch and nothing to compute.

    python benchmarks/plain_ray.py TRIALS WORKERS

Prints a line whenever another trial has ended.
"""

from __future__ import annotations

import sys
import tempfile

import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch


class Count(tune.Callback):
    """Says how many trials have ended."""

    ended = 0

    def on_trial_complete(self, iteration: int, trials: object, trial: object, **_: object) -> None:
        self.ended += 1
        print(self.ended, flush=True)


def evaluate(config: dict[str, float]) -> None:
    tune.report({"loss": sum(config.values())})


def main(trials: int, workers: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="plain-ray-") as folder:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        tune.Tuner(
            evaluate,
            param_space={f"x{i}": tune.loguniform(1e-4, 1.0) for i in range(8)},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                search_alg=OptunaSearch(seed=1),
                num_samples=trials,
                max_concurrent_trials=workers,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=f"{folder}/results", verbose=0, callbacks=[Count()]
            ),
        ).fit()
        ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
