"""A plain KerasTuner script, as its documentation has it: the study `digits` without TuneFleet.

Made a worker by KerasTuner's own environment variables alone; its argument is a folder.
"""

import sys

import keras_tuner

from studies import digits


def main(folder: str) -> None:
    print("imported", flush=True)
    (x, y), (x_test, y_test) = digits.load_data()
    tuner = keras_tuner.RandomSearch(
        digits.build_model,
        objective="val_accuracy",
        max_trials=4,
        directory=folder,
        project_name="stock",
    )
    tuner.search_space_summary()
    tuner.search(x, y, validation_data=(x_test, y_test), epochs=3, verbose=0)
    print("left well")


if __name__ == "__main__":
    main(sys.argv[1])
