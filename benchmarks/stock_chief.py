"""Stock KerasTuner's chief of a random search with eight hyperparameters and nothing to compute.

Started with KerasTuner's own environment variables; what is measured of it is in `_stock.py`.
"""

import sys

import keras_tuner


class Nothing(keras_tuner.RandomSearch):
    """A search whose trials would take no time, if this process ran any."""

    def run_trial(self, trial, *args, **kwargs):
        return {"loss": 0.0}


def main(folder: str) -> None:
    """Serves until it is ended."""
    hp = keras_tuner.HyperParameters()
    for number in range(8):
        hp.Float(f"x{number}", 1e-4, 1.0, sampling="log")
    tuner = Nothing(
        objective=keras_tuner.Objective("loss", "min"),
        max_trials=10**6,
        seed=1,
        hyperparameters=hp,
        directory=folder,
        project_name="stock",
    )
    tuner.search(verbose=0)


if __name__ == "__main__":
    main(sys.argv[1])
