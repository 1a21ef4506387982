"""Fashion-MNIST from real files, shared by real processes; the validation split."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import data, env
from hpo.errors import DataError, PlaceError, UsageError
from tests.support.cli_runs import PATIENCE_S

Fill = Callable[[pathlib.Path], pathlib.Path]

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Prints a digest of what a worker sees, once the test has let all workers go.
WORKER = """
import hashlib, sys
from hpo import data
print("ready", flush=True)
sys.stdin.readline()
for images, labels in data.fashion_mnist():
    print(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())
"""

# The package's folder is a constant of Debian's, hence the only place set by assignment.
# Asks for the data once for each line: an origin, or nothing for the usual one. One process does
# so for all origins, since the first download imports Keras.
ELSEWHERE = """
import pathlib, sys
from hpo import data, errors
data.DEBIAN_FOLDER, usual = pathlib.Path(sys.argv[1]), data.ORIGIN
for line in sys.stdin:
    data.ORIGIN = line.strip() or usual
    try:
        (x_train, _), _ = data.fashion_mnist()
        print("keras" in sys.modules, x_train.shape, flush=True)
    except errors.TuneFleetError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
"""


@pytest.fixture(scope="session")
def real_files() -> tuple[pathlib.Path, ...]:
    """The data set as this machine has it, found before any test moves the places."""
    return data.locate()


@pytest.fixture
def fill(real_files: tuple[pathlib.Path, ...]) -> Fill:
    """A function that makes a folder with the four real files, packed."""
    return functools.partial(_fill, real_files)


def _fill(files: tuple[pathlib.Path, ...], folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True)
    for part, source in zip(data.PARTS, files, strict=True):
        target = folder / f"{part.name}.gz"
        if source.suffix == ".gz":
            target.symlink_to(source.resolve())
        else:
            target.write_bytes(gzip.compress(source.read_bytes(), 1))
    return folder


@pytest.fixture
def places(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A temporary folder that holds every place that is looked at; all are empty."""
    for variable in (env.DATA_DIR, "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(env.CACHE_DIR, str(tmp_path / "cache"))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")
    # Nothing listens on this port, so a download is refused as on a host without a network.
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.delenv(variable.upper(), raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path


def spoil(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Replaces a file (or a link to one) by ``content``."""
    path.unlink()
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def asking(debian: pathlib.Path) -> Iterator[Callable[[str], str]]:
    """Asks for the data in a process of its own: what that prints for an origin, in one line."""
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, str(debian)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:

        def ask(origin: str = "") -> str:
            assert process.stdin and process.stdout
            process.stdin.write(origin + "\n")
            process.stdin.flush()
            return process.stdout.readline().rstrip()

        yield ask
        assert process.communicate(timeout=PATIENCE_S)[0] == "", "one line for each origin"


def cached_files(places: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in (places / "cache").rglob("*") if path.is_file())


def test_same_arrays_as_the_source_mapped_read_only(places: pathlib.Path, fill: Fill) -> None:
    folder = fill(places / "own")
    (x_train, y_train), (x_test, y_test) = data.fashion_mnist(folder)

    for part, array in zip(data.PARTS, (x_train, y_train, x_test, y_test), strict=True):
        content = gzip.decompress((folder / f"{part.name}.gz").read_bytes())
        assert content.endswith(array.tobytes())
        assert array.shape == part.shape
        assert array.dtype == np.uint8
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    assert np.bincount(y_train).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10


def test_cache_is_plain_npy_and_used_again(places: pathlib.Path, fill: Fill) -> None:
    folder = fill(places / "own")
    (x_train, _), _ = data.fashion_mnist(folder)
    before = {path: path.stat().st_mtime_ns for path in cached_files(places)}
    data.fashion_mnist(folder)

    assert {path: path.stat().st_mtime_ns for path in cached_files(places)} == before
    images = next(path for path in before if path.name == "train-images-idx3-ubyte.npy")
    assert np.array_equal(np.load(images)[:100], x_train[:100])


def test_workers_that_start_together_share_one_whole_cache(
    places: pathlib.Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.DATA_DIR, str(fill(places / "own")))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    printed = {worker.communicate(timeout=PATIENCE_S)[0] for worker in workers}

    assert [worker.returncode for worker in workers] == [0, 0, 0]
    seen = "".join(
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() + "\n"
        for images, labels in data.fashion_mnist()
    )
    assert printed == {seen}
    # Four arrays and nothing half-written beside them.
    assert [path.name for path in cached_files(places)] == sorted(
        f"{part.name}.npy" for part in data.PARTS
    )


@pytest.mark.parametrize("damage", ["truncated", "empty", "longer", "header", "shape"])
def test_spoilt_cache_is_rebuilt(places: pathlib.Path, fill: Fill, damage: str) -> None:
    folder = fill(places / "own")
    data.fashion_mnist(folder)
    cached = next(path for path in cached_files(places) if path.name.startswith("t10k-labels"))
    whole = cached.read_bytes()
    damaged = {
        "truncated": whole[:-1],
        "empty": b"",
        "longer": whole + b"\0",
        "header": b"\0" * 128 + whole[128:],
        "shape": whole.replace(b"(10000,)", b"(5000,2)"),
    }[damage]
    assert damaged != whole
    cached.write_bytes(damaged)

    _, (_, y_test) = data.fashion_mnist(folder)
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert cached.read_bytes() == whole


def test_arrays_in_use_survive_a_rebuild(places: pathlib.Path, fill: Fill) -> None:
    folder = fill(places / "own")
    _, (_, in_use) = data.fashion_mnist(folder)
    cached = next(path for path in cached_files(places) if path.name.startswith("t10k-labels"))
    cached.unlink()
    cached.write_bytes(b"")
    data.fashion_mnist(folder)
    assert np.bincount(in_use).tolist() == [1000] * 10


def test_order_of_places(places: pathlib.Path, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> set[pathlib.Path]:
        return {path.parent for path in data.locate()}

    keras = fill(places / "home/.keras/datasets/fashion-mnist")
    assert found() == {keras}
    moved = fill(places / "keras-home/datasets/fashion-mnist")
    monkeypatch.setenv("KERAS_HOME", str(places / "keras-home"))
    assert found() == {moved}
    debian = fill(data.DEBIAN_FOLDER)
    assert found() == {debian}
    by_variable = fill(places / "variable")
    monkeypatch.setenv(env.DATA_DIR, str(by_variable))
    assert found() == {by_variable}
    by_option = fill(places / "option")
    assert {path.parent for path in data.locate(by_option)} == {by_option}


def test_incomplete_place_is_passed_over(places: pathlib.Path, fill: Fill) -> None:
    keras = fill(places / "home/.keras/datasets/fashion-mnist")
    (fill(data.DEBIAN_FOLDER) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert {path.parent for path in data.locate()} == {keras}


def test_unpacked_files_serve_as_well(places: pathlib.Path, fill: Fill) -> None:
    folder = fill(places / "own")
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    (_, y_train), _ = data.fashion_mnist(folder)
    assert np.bincount(y_train).tolist() == [6000] * 10


def test_files_packed_by_someone_else_serve_as_well(places: pathlib.Path, fill: Fill) -> None:
    folder = fill(places / "own")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    packed = gzip.compress(gzip.decompress(labels.read_bytes()), 1)
    assert packed != labels.read_bytes()
    spoil(labels, packed)
    _, (_, y_test) = data.fashion_mnist(folder)
    assert np.bincount(y_test).tolist() == [1000] * 10


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("lack", ["a file", "everything"])
def test_given_folder_that_lacks_files_is_an_error(
    places: pathlib.Path, fill: Fill, monkeypatch: pytest.MonkeyPatch, by: str, lack: str
) -> None:
    fill(data.DEBIAN_FOLDER)
    folder = places / "own"
    if lack == "a file":
        (fill(folder) / "t10k-labels-idx1-ubyte.gz").unlink()
    if by == "variable":
        monkeypatch.setenv(env.DATA_DIR, str(folder))
    with pytest.raises(DataError) as caught:
        data.fashion_mnist(folder if by == "option" else None)
    said = "lacks t10k-labels-idx1-ubyte.gz" if lack == "a file" else "does not exist"
    assert f"{folder} (--data-dir or {env.DATA_DIR}) {said}" in str(caught.value)


@pytest.mark.parametrize("place", ["own", "debian", "home/.keras/datasets/fashion-mnist"])
def test_corrupt_file_is_an_error_wherever_it_lies(
    places: pathlib.Path, fill: Fill, place: str
) -> None:
    folder = fill(places / place)
    if place == "debian":
        fill(places / "home/.keras/datasets/fashion-mnist")
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[5000] ^= 1
    spoil(labels, gzip.compress(bytes(content)))

    with pytest.raises(DataError) as caught:
        data.fashion_mnist(folder if place == "own" else None)
    message = str(caught.value)
    assert str(labels) in message
    assert data.PARTS[3].sha256 in message
    assert hashlib.sha256(content).hexdigest() in message
    assert not any(path.name.startswith("t10k-labels") for path in cached_files(places))


@pytest.mark.parametrize("damage", ["empty", "foreign", "half", "bit"])
def test_file_that_cannot_be_unpacked_is_an_error(
    places: pathlib.Path, fill: Fill, damage: str
) -> None:
    labels = fill(places / "own") / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    damaged = {
        "empty": b"",
        "foreign": b"no gzip at all",
        "half": whole[: len(whole) // 2],
        "bit": whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
    }[damage]
    spoil(labels, damaged)
    with pytest.raises(DataError) as caught:
        data.fashion_mnist(places / "own")
    assert str(labels) in str(caught.value)
    assert data.PARTS[3].sha256 in str(caught.value)


def test_file_that_was_replaced_is_verified_again(places: pathlib.Path, fill: Fill) -> None:
    labels = fill(places / "own") / "train-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    spoil(labels, whole)
    data.fashion_mnist(places / "own")
    # The same name and the same size: only the time of change tells.
    labels.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz"):
        data.fashion_mnist(places / "own")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The test's output is for the test."""


@pytest.fixture
def origin(
    places: pathlib.Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, pathlib.Path]]:
    """A local server in the place of Keras's: its address and the folder that it serves."""
    folder = fill(places / "served")
    handler = functools.partial(QuietHandler, directory=str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()
        thread.join()


def test_a_download_is_refused_not_kept_or_completes_the_keras_cache(
    places: pathlib.Path, fill: Fill, origin: tuple[str, pathlib.Path]
) -> None:
    keras = places / "home/.keras/datasets/fashion-mnist"
    address, served = origin
    with asking(places / "debian") as ask:
        nowhere = ask()
        assert nowhere.startswith("DataError: ")
        for part in (str(places / "debian"), str(keras), data.ORIGIN, "Connection refused"):
            assert part in nowhere
        for way in ("apt-get install dataset-fashion-mnist", "--data-dir", env.DATA_DIR):
            assert way in nowhere
        # A failed download leaves nothing that a later search would take for the data.
        assert not [path for path in keras.rglob("*") if path.is_file()]

        images = served / "train-images-idx3-ubyte.gz"
        whole = images.rename(images.with_name("whole"))
        images.write_bytes(gzip.compress(b"a login page, perhaps"))
        corrupt = ask(address)
        assert corrupt.startswith("DataError: ") and data.PARTS[0].sha256 in corrupt
        assert not list(keras.iterdir())

        whole.replace(images)
        keras.rmdir()
        missing = fill(keras) / "t10k-images-idx3-ubyte.gz"
        missing.unlink()
        # The progress bar must not be mixed with what a verb prints.
        assert ask(address) == "True (60000, 28, 28)"
        assert missing.read_bytes() == (served / missing.name).read_bytes()
        assert len(list(keras.iterdir())) == 4


def test_cache_that_cannot_be_written(
    places: pathlib.Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "a-file").touch()
    monkeypatch.setenv(env.CACHE_DIR, str(places / "a-file" / "cache"))
    with pytest.raises(PlaceError) as caught:
        data.fashion_mnist(fill(places / "own"))
    assert str(places / "a-file" / "cache") in str(caught.value)
    assert env.CACHE_DIR in str(caught.value)


def test_importing_brings_in_neither_keras_nor_scikit_learn() -> None:
    code = "import sys, hpo.data; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ended.stdout == "set()\n"


COUNTS = st.integers(2, 3000)
SEEDS = st.integers(0, 2**63 - 1)
FRACTIONS = st.floats(0.001, 0.999)


@given(COUNTS, SEEDS, FRACTIONS)
def test_split_has_each_index_once(count: int, seed: int, fraction: float) -> None:
    train, validation = data.validation_split(count, seed, fraction)
    assert sorted([*train, *validation]) == list(range(count))
    assert len(train) >= 1
    assert len(validation) >= 1
    assert abs(len(validation) - count * fraction) <= 1


@given(COUNTS, SEEDS, st.data())
def test_limit_keeps_the_first_and_leaves_validation_alone(
    count: int, seed: int, draw: st.DataObject
) -> None:
    train, validation = data.validation_split(count, seed)
    limit = draw.draw(st.integers(1, len(train)))
    fewer, same = data.validation_split(count, seed, limit=limit)
    assert np.array_equal(fewer, train[:limit])
    assert np.array_equal(same, validation)


def test_split_follows_the_seed() -> None:
    first, again, other = (data.validation_split(60_000, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    assert (len(first[0]), len(first[1])) == (54_000, 6_000)


@pytest.mark.parametrize("limit", [54_001, 0, -1])
def test_limit_beyond_what_there_is(limit: int) -> None:
    with pytest.raises(UsageError, match="54000 training examples") as caught:
        data.validation_split(60_000, 0, limit=limit)
    assert f"--train-examples {limit}" in str(caught.value)


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.1), (1, 0.1), (10, 0.0), (10, 1.0)])
def test_nothing_to_split(count: int, fraction: float) -> None:
    with pytest.raises(UsageError, match="hold out"):
        data.validation_split(count, 0, fraction)
