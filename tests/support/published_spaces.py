"""What the publications state of the spaces they searched; what they leave open is not here."""

from __future__ import annotations

from typing import Any

# A parameter's ends, or its values; None where only its name is published.
SPACES: dict[str, dict[str, dict[str, Any] | None]] = {
    "cnn_l2": {
        "filters_1": {"kind": "int", "low": 32, "high": 128},
        "filters_2": {"kind": "int", "low": 32, "high": 128},
        "kernel_1": {"kind": "choice", "values": (3, 5)},
        "kernel_2": {"kind": "choice", "values": (3, 5)},
        "dense_units": {"kind": "int", "low": 32, "high": 128},
        "learning_rate": {"kind": "choice", "values": (0.01, 0.001)},
    },
    "cnn_dense": {"learning_rate": None, "dense_units": None, "epochs": None},
    "cnn_dropout": {
        "dense_units": {"kind": "int", "low": 64, "high": 512},
        "dropout": {"kind": "float", "low": 0.1, "high": 0.5},
        "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "sampling": "log"},
        "optimizer": {"kind": "choice", "values": ("adam", "rmsprop")},
    },
}

# The best points that are published, and the untuned network.
POINTS: dict[str, list[dict[str, Any]]] = {
    "cnn_l2": [],
    "cnn_dense": [{"learning_rate": 0.001, "dense_units": 128, "epochs": 5}],
    "cnn_dropout": [
        {"dense_units": 480, "dropout": 0.3, "learning_rate": 0.000256, "optimizer": "adam"},
        {"dense_units": 224, "dropout": 0.2, "learning_rate": 0.000749, "optimizer": "adam"},
    ],
}
