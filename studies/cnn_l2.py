"""Two tuned convolutions, a tuned dense layer and L2 regularization, on Fashion-MNIST.

Published: two convolutions with ReLU, a dense layer, a softmax over ten classes, L2, Adam;
the ends of the space (32 to 128 filters and dense units, kernels of 3 x 3 or 5 x 5, a rate
of 0.01 or 0.001); random search; a tenth of the training images for validation. The best
reached a test accuracy of about 0.91.

Chosen here, since the publication leaves it open: pooling after each convolution (without
it the largest point costs six times as much, minutes an epoch on a CPU), steps of 32, which
make the grid 512 points, up to 10 epochs with early stopping (after 5, trials with the lower
rate were still getting better), Keras's own batch of 32, and the L2 factor 1e-5 on the kernels
of both convolutions and of the dense layer. The loss, also that of the test set, holds the
penalty.
"""

from __future__ import annotations

from typing import Any

from hpo import data
from studies._images import classifier, convolutions, early_stopping

OBJECTIVE = "val_accuracy"
EPOCHS = 10
BATCH_SIZE = 32

L2 = 1e-5
PATIENCE = 3


def build_model(hp: Any) -> Any:
    """The compiled network for uint8 images (28, 28) and labels from 0 to 9."""
    import keras

    filters = tuple(hp.Int(f"filters_{n}", 32, 128, step=32) for n in (1, 2))
    kernels = tuple(hp.Choice(f"kernel_{n}", [3, 5]) for n in (1, 2))
    units = hp.Int("dense_units", 32, 128, step=32)
    rate = hp.Choice("learning_rate", [1e-2, 1e-3], default=1e-3)
    penalty = keras.regularizers.L2(L2)
    dense = keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty)
    hidden = [*convolutions(filters, kernels, penalty), dense]
    return classifier(hidden, keras.optimizers.Adam(rate))


def load_data() -> Any:
    """Fashion-MNIST as ``(x_train, y_train), (x_test, y_test)``."""
    return data.fashion_mnist()


def callbacks(hp: Any) -> list[Any]:
    """Early stopping."""
    return [early_stopping(PATIENCE)]
