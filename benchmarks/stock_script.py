"""The study cnn-dropout as a plain KerasTuner script, the way its documentation shows.

Started thrice, with KerasTuner's own environment variables: as the chief and as two workers.
Prints, in the chief, the wall-clock time at which it leaves.
"""

import sys
import time

import keras_tuner

from hpo.data import validation_split
from studies import cnn_dropout


def main(folder: str, trials: int, examples: int, epochs: int, seed: int) -> None:
    """Searches in ``folder``; KerasTuner's workers share it with the chief."""
    (x, y), _ = cnn_dropout.load_data()
    train, validation = validation_split(len(y), seed, limit=examples)
    tuner = keras_tuner.RandomSearch(
        cnn_dropout.build_model,
        objective="val_accuracy",
        max_trials=trials,
        seed=seed,
        directory=folder,
        project_name="stock",
    )
    tuner.search(
        x[train],
        y[train],
        validation_data=(x[validation], y[validation]),
        epochs=epochs,
        batch_size=cnn_dropout.BATCH_SIZE,
        verbose=0,
    )
    print(f"left at {time.time()}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
