"""What the published studies of Fashion-MNIST share: both ends of a network, early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


# Keras is imported where it is used, so that a study's limits are read without it.
def convolutions(
    filters: tuple[int, int] = (32, 64), kernels: tuple[int, int] = (3, 3), penalty: Any = None
) -> list[Any]:
    """Two convolutions with ReLU, each followed by pooling, made flat at the end.

    ``kernels`` are the widths of the square kernels, which ``penalty`` regularizes.
    """
    import keras

    layers: list[Any] = []
    for count, width in zip(filters, kernels, strict=True):
        layers.append(
            keras.layers.Conv2D(count, width, activation="relu", kernel_regularizer=penalty)
        )
        layers.append(keras.layers.MaxPooling2D())
    return [*layers, keras.layers.Flatten()]


def classifier(hidden: Sequence[Any], optimizer: Any) -> Any:
    """The compiled network of the ``hidden`` layers, for uint8 images (28, 28), labels 0 to 9."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            # In the graph, so that data stay bytes in memory, a quarter of float32.
            keras.layers.Rescaling(1 / 255),
            keras.layers.Reshape((28, 28, 1)),
            *hidden,
            # Probabilities lose too much in a 16-bit float when precision is mixed.
            keras.layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def early_stopping(patience: int) -> Any:
    """Ends a trial after ``patience`` epochs without a better validation accuracy.

    It restores no weights: the best epoch's are kept by whoever runs the trial.
    """
    import keras

    return keras.callbacks.EarlyStopping("val_accuracy", patience=patience, mode="max")
