"""A copy of a run in an object store: what is left where a cluster and its volumes are gone.

``python -m cluster.store RUNS RUN URI`` brings a run's folder back from ``URI/RUN`` where it is
not there; with ``--keep S`` it keeps that copy up to date, every S seconds and once more on
SIGTERM. URI is of S3 (s3://BUCKET/PREFIX?endpoint_override=...), Google's (gs://) or Azure's store
(abfs://), with credentials where their own tools look for them, or a folder (file://).
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from hpo import ledger, token_file
from hpo.errors import PlaceError, TuneFleetError
from hpo.ledger import snapshot
from hpo.run import Run, check_id

# What opens a chief stays with it, and what only its own host can use.
_LEFT_OUT = ("token", "tls.pem")
_LEFT_OUT_ENDS = (".lock", "-wal", "-shm", ".tmp")


class Store:
    """The copy of one run at ``uri/run``; PlaceError where the store cannot be used."""

    def __init__(self, runs: pathlib.Path, run_id: str, uri: str) -> None:
        self._folder = runs / check_id(run_id)
        self._copied: dict[str, tuple[int, int]] = {}
        with _plainly(uri):
            from pyarrow import fs

            self._fs = fs
            self._local = fs.LocalFileSystem()
            self._there, path = fs.FileSystem.from_uri(uri)
        self._base = f"{path.rstrip('/')}/{run_id}"
        self._uri = uri

    def restore(self) -> bool:
        """Brings the run back; False where it is here already, or has no copy yet.

        A chief that finds half of it would take that for the run, so it comes whole or not at all.
        """
        if self._folder.exists():
            return False
        with _plainly(self._uri):
            bucket = self._base.partition("/")[0]
            # Of a folder's path that is nothing; a bucket that is not there is a misspelt one.
            if bucket and not self._there.get_file_info(bucket).type:
                raise FileNotFoundError(f"there is no {bucket}")
            names = self._names()
            if ledger.FILE not in names:
                return False
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            draft = pathlib.Path(tempfile.mkdtemp(prefix=".restored-", dir=self._folder.parent))
            try:
                for name in names:
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    self._copy(f"{self._base}/{name}", self._there, str(draft / name), self._local)
                _complete(Run(draft))
                draft.rename(self._folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return True

    def keep(self) -> None:
        """Copies what has changed since the last time, and takes away what is no more.

        The ledger is copied first and stored last, so all that a stored one names is there.
        """
        if not (self._folder / ledger.FILE).exists():
            return
        with tempfile.TemporaryDirectory() as scratch, _plainly(self._uri):
            whole = pathlib.Path(scratch) / ledger.FILE
            snapshot.unpack(snapshot.pack(self._folder), whole.parent)
            found = dict(_files(self._folder))
            for name, state in found.items():
                if self._copied.get(name) != state:
                    with contextlib.suppress(FileNotFoundError):
                        self._copy(
                            str(self._folder / name),
                            self._local,
                            f"{self._base}/{name}",
                            self._there,
                        )
                        self._copied[name] = state
            self._copy(str(whole), self._local, f"{self._base}/{ledger.FILE}", self._there)
            for name in self._names() - found.keys() - {ledger.FILE}:
                self._there.delete_file(f"{self._base}/{name}")
                self._copied.pop(name, None)

    def _names(self) -> set[str]:
        chosen = self._fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        rows = self._there.get_file_info(chosen)
        return {row.path[len(self._base) + 1 :] for row in rows if row.is_file}

    def _copy(self, source: str, source_fs: Any, target: str, target_fs: Any) -> None:
        # In a store of objects a folder would be one more object.
        if target_fs.type_name == "local":
            target_fs.create_dir(target.rpartition("/")[0], recursive=True)
        with (
            source_fs.open_input_stream(source) as read,
            target_fs.open_output_stream(target) as out,
        ):
            shutil.copyfileobj(read, out)


def _complete(run: Run) -> None:
    """What a copy has not: folders with nothing in them, and a token."""
    for folder in (run.weights, run.logs, run.checkpoints, run.tensorboard):
        folder.mkdir(exist_ok=True)
    token_file.write(run.token_file, token_file.Secret(token_file.new_token(), ""))


def _files(folder: pathlib.Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """All that is to be copied but the ledger: names with what changes when a file does."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or name in (*_LEFT_OUT, ledger.FILE) or name.endswith(_LEFT_OUT_ENDS):
            continue
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                state = path.stat()
                yield name, (state.st_size, state.st_mtime_ns)


@contextlib.contextmanager
def _plainly(uri: str) -> Iterator[None]:
    """What a store has against a call, as one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise PlaceError(
            f"the object store {uri.partition('?')[0]}: {said}: see the URI and its credentials"
        ) from error


def main(arguments: Sequence[str]) -> int:
    """Does what was typed; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster.store", description=__doc__)
    parser.add_argument("runs", type=pathlib.Path)
    parser.add_argument("run")
    parser.add_argument("uri")
    parser.add_argument("--keep", type=float, metavar="S", help="copy every S seconds")
    typed = parser.parse_args(arguments)
    try:
        store = Store(typed.runs, typed.run, typed.uri)
        if typed.keep is None:
            came = store.restore()
            how = "came back from its copy" if came else "is here, or has no copy"
            print(f"run {typed.run} {how}")
        else:
            _go_on(store, typed.keep)
    except TuneFleetError as error:
        print(f"cluster.store: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _go_on(store: Store, every_s: float) -> None:
    """Copies until SIGTERM; a store that cannot be reached is tried again, and said once."""
    told_to_leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_leave.set())
    trouble = ""
    while not told_to_leave.wait(every_s):
        try:
            store.keep()
            trouble = ""
        except PlaceError as error:
            if str(error) != trouble:
                trouble = str(error)
                print(f"cluster.store: {trouble}", file=sys.stderr, flush=True)
    store.keep()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
