"""cnn-dropout without early stopping, so that each curve of a recorded table is whole."""

from __future__ import annotations

from studies.cnn_dropout import BATCH_SIZE, GRID, OBJECTIVE, build_model, load_data

__all__ = ["BATCH_SIZE", "EPOCHS", "GRID", "OBJECTIVE", "build_model", "load_data"]

EPOCHS = 10
