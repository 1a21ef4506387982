"""Scikit-learn's handwritten digits and a small dense network: a search in seconds.

1,797 images of 8 x 8 pixels come with scikit-learn, so nothing is downloaded. The space has
each kind of hyperparameter once, and one, SGD's momentum, that exists only on a condition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

OBJECTIVE = "val_accuracy"
EPOCHS = 5
BATCH_SIZE = 32
GRID = {"learning_rate": [0.001, 0.01, 0.1], "momentum": [0.0, 0.5, 0.9]}

TEST_EXAMPLES = 360


# Keras is imported where it is used, so that the study's limits are read without it.
def build_model(hp: Any) -> Any:
    """The compiled network for images (8, 8) with values from 0 to 16."""
    import keras

    units = hp.Int("units", 16, 64, step=16)
    model = keras.Sequential(
        [
            keras.Input((8, 8), dtype="uint8"),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(optimizer(hp), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def optimizer(hp: Any) -> Any:
    """Adam, or SGD with a momentum of its own."""
    import keras

    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    kind = hp.Choice("optimizer", ["adam", "sgd"])
    # Entered whatever was chosen: behind a plain `if` the space would be found by luck only.
    with hp.conditional_scope("optimizer", ["sgd"]):
        momentum = hp.Float("momentum", 0.0, 0.9)
    if kind == "adam":
        return keras.optimizers.Adam(rate)
    return keras.optimizers.SGD(rate, momentum=momentum)


def load_data() -> Any:
    """1,437 training and 360 test examples, the same ones for every search."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype("uint8")
    # The file is not in random order, and its end is harder than the rest.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[TEST_EXAMPLES:], order[:TEST_EXAMPLES]
    return (images[train], labels[train]), (images[test], labels[test])
