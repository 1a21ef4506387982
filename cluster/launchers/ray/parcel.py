"""What of a study and of the project travels to a Ray cluster: what is needed and no more."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator

from hpo.child import ROOT
from hpo.engines.ray_tune.modules import own_modules
from hpo.errors import StudyError, UsageError
from hpo.study import STUDIES_DIR

# What Ray's dashboard takes in one piece.
LIMIT = 100 * 1024**2
STUDY_FOLDER = "study"
START = f"{STUDY_FOLDER}/start.json"
_PROJECT = ("launch.py", "hpo", "cluster")
_NEVER = ("__pycache__",)
# The earliest that a zip can say: the same content is then the same parcel, sent once.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def files_of(study: pathlib.Path, start: pathlib.Path | None) -> dict[str, pathlib.Path]:
    """Where each file lies in the parcel, and here."""
    found = files_of_project()
    of_project = study.parent == STUDIES_DIR
    for path in [study, *own_modules(study, [ROOT])]:
        if ROOT in path.parents and (of_project or path.parent == ROOT):
            found |= _below(path, path.relative_to(ROOT).as_posix())
        else:
            found |= _below(path, f"{STUDY_FOLDER}/{path.name}")
    if start:
        found[START] = start
    return found


def files_of_project() -> dict[str, pathlib.Path]:
    """The same for what every search and every question needs."""
    found: dict[str, pathlib.Path] = {}
    for name in _PROJECT:
        found |= _below(ROOT / name, name)
    return found


def study_in(study: pathlib.Path) -> str:
    """What to call the study there."""
    if study.parent == STUDIES_DIR:
        return study.relative_to(ROOT).as_posix()
    return f"{STUDY_FOLDER}/{study.name}"


@contextlib.contextmanager
def packed(files: dict[str, pathlib.Path]) -> Iterator[pathlib.Path]:
    """The parcel as a zip file, which is gone afterwards.

    Raises UsageError where it is larger than Ray takes, StudyError where a file is unreadable.
    """
    with tempfile.TemporaryDirectory(prefix="tunefleet-") as folder:
        path = pathlib.Path(folder) / "parcel.zip"
        sizes = _pack(files, path)
        total = path.stat().st_size
        if total >= LIMIT:
            largest = max(sizes, key=lambda name: sizes[name])
            raise UsageError(
                f"what is sent has {mebibytes(total)}, and Ray takes less than {mebibytes(LIMIT)}: "
                f"keep data apart from modules; the largest is {files[largest]} "
                f"({mebibytes(sizes[largest])})"
            )
        yield path


def mebibytes(count: int) -> str:
    """A size as Ray says it."""
    return f"{count / 2**20:.1f} MiB"


def _pack(files: dict[str, pathlib.Path], target: pathlib.Path) -> dict[str, int]:
    """Writes the zip; answers what each file takes in it, in bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as parcel:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            try:
                parcel.writestr(entry, path.read_bytes())
            except OSError as error:
                raise StudyError(f"cannot read {path}: {error.strerror}") from error
        return {entry.filename: entry.compress_size for entry in parcel.infolist()}


def _below(path: pathlib.Path, name: str) -> dict[str, pathlib.Path]:
    """The file, or each file in the folder, by its place in the parcel."""
    if path.is_file():
        return {name: path}
    return {
        f"{name}/{each.relative_to(path).as_posix()}": each
        for each in path.rglob("*")
        if each.is_file() and not set(each.relative_to(path).parts) & set(_NEVER)
    }
