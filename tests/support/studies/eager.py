"""A Keras study that runs an operation at import, after which its process cannot be forked."""

import keras
import numpy as np
import tensorflow as tf

EPOCHS = 1
READY = tf.constant(1.0) + 1.0


def build_model(hp):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def load_data():
    x = np.random.default_rng(0).normal(size=(200, 2))
    y = (x.sum(axis=1) > 0).astype("int32")
    return (x, y), (x, y)
