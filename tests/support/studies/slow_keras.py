"""A small Keras model whose epochs take a while; how long, the test says.

SLOW_HOLD, such as "3=/tmp/x,5=/tmp/y", names files without which no epoch after the third begins,
and then none after the fifth.
"""

import os
import time

import keras
import numpy as np

EPOCHS = 6
EPOCH_S = float(os.environ.get("SLOW_EPOCH_S", "0.3"))
HOLDS = dict(each.split("=") for each in os.environ.get("SLOW_HOLD", "").split(",") if each)


def build_model(hp):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(hp.Int("units", 4, 64), activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def load_data():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 8)), rng.integers(0, 3, 400)
    return (x[:300], y[:300]), (x[300:], y[300:])


def callbacks(hp):
    class Slow(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            time.sleep(EPOCH_S)
            awaited = HOLDS.get(str(epoch))
            while awaited and not os.path.exists(awaited):
                time.sleep(0.02)

    return [Slow()]
