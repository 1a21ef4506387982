"""A convolutional network with one tuned dense layer and dropout, on Fashion-MNIST.

Published: the space (dense units, dropout, learning rate, Adam or RMSprop), a batch of 128,
up to 30 epochs with early stopping, ten trials of random and of Bayesian search. The best
had 480 units, dropout 0.3, a rate of 2.56e-4 and Adam: test accuracy 0.9010.

Chosen here, since the publication leaves it open: the front of the network (two convolutions
of 32 and 64 filters of 3 x 3, each followed by pooling), what early stopping watches
(val_accuracy, 5 epochs without a better one), the steps of the dense units and of dropout,
and the learning rates that grid search tries.
"""

from __future__ import annotations

from typing import Any

from hpo import data
from studies._images import classifier, convolutions, early_stopping

OBJECTIVE = "val_accuracy"
EPOCHS = 30
BATCH_SIZE = 128
# A continuous range has no points to enumerate: about three a decade.
GRID = {"learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}

PATIENCE = 5


# Keras is imported where it is used, so that the study's limits are read without it.
def build_model(hp: Any) -> Any:
    """The compiled network for uint8 images (28, 28) and labels from 0 to 9."""
    import keras

    # The published best values, 480 and 224, lie on a step of 32.
    units = hp.Int("dense_units", 64, 512, step=32)
    dropout = hp.Float("dropout", 0.1, 0.5, step=0.1)
    hidden = [
        *convolutions(),
        keras.layers.Dense(units, activation="relu"),
        keras.layers.Dropout(dropout),
    ]
    return classifier(hidden, optimizer(hp))


def optimizer(hp: Any) -> Any:
    """Adam or RMSprop with the trial's learning rate."""
    import keras

    rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    kinds = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    return kinds[hp.Choice("optimizer", list(kinds))](rate)


def load_data() -> Any:
    """Fashion-MNIST as ``(x_train, y_train), (x_test, y_test)``."""
    return data.fashion_mnist()


def callbacks(hp: Any) -> list[Any]:
    """Early stopping."""
    return [early_stopping(PATIENCE)]
