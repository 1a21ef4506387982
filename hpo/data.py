"""Fashion-MNIST as read-only arrays that all workers of a host share, and the validation split.

The files are looked for in this order:

1. the folder given by ``--data-dir`` or ``TUNEFLEET_DATA_DIR``, and then nowhere else;
2. Debian's package ``dataset-fashion-mnist``;
3. Keras's own cache, ``datasets/fashion-mnist`` under ``KERAS_HOME`` or ``~/.keras``;
4. Keras's download, into that cache.

A place without all four files is passed over; a corrupt file is an error wherever it lies.
What was verified is kept unpacked, as ``.npy`` under ``hpo.env.cache_dir()``, and mapped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import math
import os
import pathlib
import secrets
import socket
import sys
import tempfile
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpo import env
from hpo.errors import DataError, PlaceError, UsageError

Array = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
KERAS_HOME = "KERAS_HOME"

# A stalled connection must not hold a worker for ever.
DOWNLOAD_TIMEOUT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the data set's four files: its name unpacked, what it holds, its checksum."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def idx_header(self) -> int:
        """Bytes before the data: a magic number, then one 32-bit number a dimension."""
        return 4 + 4 * len(self.shape)


# The checksums are those of the unpacked files. Packed, the same data goes round in two
# forms: Debian's gzip headers lack the names and times that upstream's and Keras's have.
PARTS = (
    Part(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    Part(
        "train-labels-idx1-ubyte",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    Part(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    Part(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


def fashion_mnist(
    data_dir: pathlib.Path | None = None,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """``(x_train, y_train), (x_test, y_test)`` as Keras's data set gives them.

    All uint8 and mapped read-only: images (60000, 28, 28) and (10000, 28, 28) with values
    from 0 to 255, labels (60000,) and (10000,) from 0 to 9. Raises DataError where the
    files are missing or corrupt, PlaceError where the cache folder cannot be written.
    """
    sources = locate(data_dir)
    cache = env.cache_dir() / "fashion-mnist" / _fingerprint(sources)
    x_train, y_train, x_test, y_test = (
        _shared(part, source, cache / f"{part.name}.npy")
        for part, source in zip(PARTS, sources, strict=True)
    )
    return (x_train, y_train), (x_test, y_test)


def validation_split(
    count: int, seed: int, fraction: float = 0.1, limit: int | None = None
) -> tuple[Indices, Indices]:
    """Indices ``(train, validation)`` of ``count`` examples, each index at most once.

    The validation set is ``fraction`` of the examples, at least one, and depends on
    ``count``, ``seed`` and ``fraction`` alone. ``limit`` keeps the first so many training
    indices, so that a smaller limit is a part of a larger one. Indices stay in the order
    of the permutation: sorted, the first ones would be the file's first examples, which in
    many a data set are all of one class. Raises UsageError where nothing could be trained
    on, or ``limit`` is more than there is.
    """
    if count < 2 or not 0 < fraction < 1:
        raise UsageError(
            f"cannot hold out {fraction:g} of {count} examples for validation:"
            " at least 2 examples and a fraction between 0 and 1 are needed"
        )
    held_out = min(max(1, round(count * fraction)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    available = count - held_out
    if limit is not None and not 1 <= limit <= available:
        raise UsageError(
            f"--train-examples {limit}: there are {available} training examples after"
            f" {held_out} of {count} were held out for validation; give 1 to {available}"
        )
    return order[held_out:][:limit], order[:held_out]


def locate(data_dir: pathlib.Path | None = None) -> tuple[pathlib.Path, ...]:
    """The files that :func:`fashion_mnist` reads, in the order of PARTS, not yet verified.

    Downloads them where no place has them. Raises DataError that names every place looked
    at, or, where a folder was given, what that folder lacks.
    """
    return locate_here(data_dir) or _download(keras_folder())


def locate_here(data_dir: pathlib.Path | None = None) -> tuple[pathlib.Path, ...] | None:
    """The same without a download: None where no place has the files."""
    if given := _given(data_dir):
        found, lack = _search(given)
        if lack:
            raise DataError(
                f"the data folder {given} (--data-dir or {env.DATA_DIR}) {lack}; it must hold"
                f" {', '.join(part.name for part in PARTS)}, each with or without .gz"
            )
        return found
    for folder in (DEBIAN_FOLDER, keras_folder()):
        found, lack = _search(folder)
        if not lack:
            return found
    return None


def keras_folder() -> pathlib.Path:
    """Where Keras keeps Fashion-MNIST, told without importing Keras."""
    if own := os.environ.get(KERAS_HOME):
        return pathlib.Path(own).expanduser() / "datasets" / "fashion-mnist"
    home = os.path.expanduser("~")
    # Keras falls back to /tmp, and not to TMPDIR, where the home cannot be written.
    base = home if os.access(home, os.W_OK) else "/tmp"
    return pathlib.Path(base) / ".keras" / "datasets" / "fashion-mnist"


def _given(data_dir: pathlib.Path | None) -> pathlib.Path | None:
    if data_dir is not None:
        return data_dir
    named = os.environ.get(env.DATA_DIR)
    return pathlib.Path(named) if named else None


def _search(folder: pathlib.Path) -> tuple[tuple[pathlib.Path, ...], str]:
    """The parts' files in ``folder``, and what is lacking in words ("" for nothing)."""
    files = {part.name: _file_of(part, folder) for part in PARTS}
    missing = [f"{name}.gz" for name, path in files.items() if path is None]
    if not missing:
        return tuple(path for path in files.values() if path), ""
    if not os.path.isdir(folder):
        return (), "is not a folder" if os.path.exists(folder) else "does not exist"
    return (), f"lacks {', '.join(missing)}"


def _file_of(part: Part, folder: pathlib.Path) -> pathlib.Path | None:
    for path in (folder / f"{part.name}.gz", folder / part.name):
        if os.path.isfile(path):
            return path
    return None


def _download(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Fetches into Keras's cache what it lacks; raises DataError where that fails."""
    try:
        for part in PARTS:
            if _file_of(part, folder) is None:
                _fetch(part, folder)
    except DataError:
        raise
    except Exception as error:  # Keras raises bare Exception when a download fails
        raise DataError(_nowhere(error)) from error
    return _search(folder)[0]


def _fetch(part: Part, folder: pathlib.Path) -> None:
    """Downloads one part; it gets its name in ``folder`` only when whole and verified.

    Keras itself writes under the final name, where a second worker would meet half a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{part.name}.gz"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as private:
        with _polite_download():
            import keras

            path = keras.utils.get_file(name, origin=ORIGIN + name, cache_subdir=private)
        _unpack(part, pathlib.Path(path))
        os.replace(path, folder / name)


@contextlib.contextmanager
def _polite_download() -> Iterator[None]:
    """Keras's progress bar goes to standard error, and a dead connection ends."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _nowhere(error: Exception) -> str:
    """The message for when no place has the data and the download failed with ``error``."""
    places = "; ".join(
        f"{folder} {_search(folder)[1]}" for folder in (DEBIAN_FOLDER, keras_folder())
    )
    return (
        f"Fashion-MNIST was not found: {places}; the download from {ORIGIN} into"
        f" {keras_folder()} failed ({error}). Install Debian's package"
        " (apt-get install dataset-fashion-mnist), name a folder with its four files by"
        f" --data-dir or {env.DATA_DIR}, or let this machine reach the download"
    )


def _fingerprint(sources: tuple[pathlib.Path, ...]) -> str:
    """Changes whenever a source file does, so that a replaced file is verified again."""
    digest = hashlib.sha256()
    for part, source in zip(PARTS, sources, strict=True):
        status = source.stat()
        line = (part.sha256, str(source.resolve()), status.st_size, status.st_mtime_ns)
        digest.update(repr(line).encode())
    return digest.hexdigest()[:12]


def _shared(part: Part, source: pathlib.Path, cached: pathlib.Path) -> Array:
    """The part's array, mapped from ``cached``, which is made from ``source`` if need be."""
    array = _map(part, cached)
    if array is None:
        _store(part, _unpack(part, source), cached)
        array = _map(part, cached)
    if array is None:
        raise PlaceError(f"{cached} cannot be read back after it was written")
    return array


def _map(part: Part, cached: pathlib.Path) -> Array | None:
    """The cached array, mapped read-only; None where the file is not whole.

    Header and size are compared with the only right ones: parsing a spoilt header may fail
    in many ways, and mapping a short file kills the process at the first missing page.
    """
    header = _npy_header(part)
    try:
        with cached.open("rb") as stream:
            whole = stream.read(len(header)) == header
        if not whole or cached.stat().st_size != len(header) + math.prod(part.shape):
            return None
        return np.memmap(cached, np.uint8, mode="r", offset=len(header), shape=part.shape)
    except OSError:
        return None


def _npy_header(part: Part) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": part.shape}
    )
    return stream.getvalue()


def _store(part: Part, data: bytes, cached: pathlib.Path) -> None:
    """Writes the ``.npy`` at once or not at all: other workers may be doing the same."""
    private = cached.with_name(f".{cached.name}.{secrets.token_hex(8)}")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            with private.open("xb") as stream:
                stream.write(_npy_header(part) + data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(private, cached)
        finally:
            private.unlink(missing_ok=True)
    except OSError as error:
        raise PlaceError(
            f"cannot write the cache folder {cached.parent} ({error.strerror or error});"
            f" {env.CACHE_DIR} names another one"
        ) from error


def _unpack(part: Part, source: pathlib.Path) -> bytes:
    """The part's data without its idx header; raises DataError where it is not the real one."""
    try:
        content = source.read_bytes()
        if source.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(_corrupt(part, source, f"no content ({error})")) from error
    found = hashlib.sha256(content).hexdigest()
    if found != part.sha256:
        raise DataError(_corrupt(part, source, found))
    return content[part.idx_header :]


def _corrupt(part: Part, source: pathlib.Path, found: str) -> str:
    return (
        f"{source} is not Fashion-MNIST's {part.name}: the SHA-256 of its unpacked content"
        f" should be {part.sha256}, found {found}; replace the file"
    )
