"""Two interleaved half-moons, told apart by a small network."""

import keras
import numpy as np

EPOCHS = 10


def build_model(hp):
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(hp.Int("layers", 1, 3)):
        model.add(keras.layers.Dense(hp.Choice("units", [8, 16, 32]), activation="relu"))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def load_data():
    random = np.random.default_rng(0)
    angle, moon = random.uniform(0, np.pi, 1200), random.integers(0, 2, 1200)
    x, y = np.cos(angle) + moon, np.sin(angle)
    points = np.stack([x, np.where(moon, 0.5 - y, y)], axis=1) + random.normal(0, 0.25, (1200, 2))
    return (points[:1000], moon[:1000]), (points[1000:], moon[1000:])
