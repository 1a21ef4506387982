"""From what a study's load_data() answers to the tf.data sets that a trial trains on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpo.data import validation_split
from hpo.errors import StudyError

_PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Batched ``tf.data`` sets, and how many training examples there are (None: unknown)."""

    train: Any
    validation: Any
    test: Any
    examples: int | None


def prepare(
    loaded: Any,
    batch_size: int,
    split_seed: int,
    shuffle_seed: int,
    train_examples: int | None = None,
) -> Inputs:
    """The sets of a trial from what ``load_data`` answered.

    From two pairs of arrays, 10 % of the training pair become the validation set: the same
    ones for every trial of a run, by ``split_seed``. ``train_examples`` limits the training
    set after the split. Raises StudyError where the answer has neither documented form.
    """
    if isinstance(loaded, Mapping):
        return _from_mapping(loaded, batch_size, shuffle_seed, train_examples)
    try:
        (x_train, y_train), (x_test, y_test) = loaded
        count = len(y_train)
    except (TypeError, ValueError):
        raise StudyError(
            "load_data() must answer (x_train, y_train), (x_test, y_test), or a mapping with "
            f"train, validation and test; it answered {type(loaded).__name__}"
        ) from None
    train, validation = validation_split(count, split_seed, limit=train_examples)
    source = _tensors((x_train, y_train))
    return Inputs(
        train=_gathered(source, train, batch_size, shuffle_seed),
        validation=_gathered(source, validation, batch_size),
        test=_gathered(_tensors((x_test, y_test)), np.arange(len(y_test)), batch_size),
        examples=len(train),
    )


def _from_mapping(
    loaded: Mapping[str, Any], batch_size: int, shuffle_seed: int, train_examples: int | None
) -> Inputs:
    import tensorflow as tf

    missing = [name for name in _PARTS if name not in loaded]
    if missing:
        raise StudyError(
            f"load_data() answered a mapping without {missing[0]!r}: give {', '.join(_PARTS)}"
        )
    sets: dict[str, Any] = {}
    examples = None
    for name in _PARTS:
        part, seed = loaded[name], shuffle_seed if name == "train" else None
        if isinstance(part, tf.data.Dataset):
            if name == "train" and train_examples is not None:
                raise StudyError(
                    "train_examples cannot limit a tf.data set: answer arrays, "
                    "or leave --train-examples out"
                )
            sets[name] = part
            continue
        count = len(part[1])
        limit = train_examples if name == "train" and train_examples else count
        if name == "train":
            examples = min(limit, count)
        sets[name] = _gathered(_tensors(part), np.arange(min(limit, count)), batch_size, seed)
    return Inputs(**sets, examples=examples)


def skip_epochs(train: Any, epochs: int) -> None:
    """Brings the set to the order in which it is after ``epochs`` of ``fit``.

    The order depends on how many iterators there were. Keras makes one at the start of each
    epoch and, where it knows the number of batches, one more at its end.
    """
    per_epoch = 2 if int(train.cardinality()) > 0 else 1
    for _ in range(per_epoch * epochs):
        iter(train)


def digests(loaded: Any) -> dict[str, str | None]:
    """The SHA-256 of each part that ``load_data`` answered, over its arrays in order.

    Of an array go in its type, its shape and its bytes. None for a ``tf.data`` set, which
    has no bytes of its own.
    """
    mapped = isinstance(loaded, Mapping)
    parts = loaded if mapped else dict(zip(("train", "test"), loaded, strict=True))
    return {name: _digest(parts[name]) for name in _PARTS if name in parts}


def _digest(part: Any) -> str | None:
    import keras
    import tensorflow as tf

    if isinstance(part, tf.data.Dataset):
        return None
    found = hashlib.sha256()
    for array in map(np.asarray, keras.tree.flatten(tuple(part))):
        found.update(f"{array.dtype.str} {array.shape} ".encode())
        # The bytes of objects are addresses, others in every process.
        found.update((array.astype(str) if array.dtype.hasobject else array).tobytes())
    return found.hexdigest()


def _tensors(pair: Any) -> Any:
    import keras
    import tensorflow as tf

    return keras.tree.map_structure(tf.convert_to_tensor, tuple(pair))


def _gathered(
    source: Any, indices: np.ndarray[Any, Any], batch_size: int, shuffle_seed: int | None = None
) -> Any:
    """Batches of the rows ``indices`` of the tensors in ``source``, without a copy of them all."""
    import keras
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices(indices)
    if shuffle_seed is not None:
        rows = rows.shuffle(len(indices), seed=shuffle_seed, reshuffle_each_iteration=True)

    def gather(batch: Any) -> Any:
        return keras.tree.map_structure(lambda tensor: tf.gather(tensor, batch), source)

    options = tf.data.Options()
    # Autotuning makes the epochs of a process pinned to one core wait for its back-off.
    options.autotune.enabled = False
    options.deterministic = True
    return rows.batch(batch_size).map(gather).prefetch(2).with_options(options)
