"""What `--set KEY=VALUE` can set: settings that few need, a row each."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable

from hpo import precision
from hpo.errors import UsageError
from hpo.registry import suggest
from hpo.study import Form, Study

Settings = dict[str, str]


def _any_study(value: str, study: Study) -> None:
    return


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key. ``parse`` answers the value as it is kept, ``check_study`` whether it goes with
    a study; both raise UsageError. What ``decides_results`` makes another search of it.
    """

    values: str
    help: str
    parse: Callable[[str], str]
    check_study: Callable[[str, Study], None] = _any_study
    decides_results: bool = True


EARLY_STOPPING = "early_stopping"
GRID_ORDER = "grid_order"
OPTUNA_STORAGE = "optuna_storage"
# A value of GRID_ORDER.
RANDOM_ORDER = "random"


# A database in a file: its name stands behind the third slash.
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?://)(?:/([^?]*))?(.*)", re.DOTALL)


def _storage_url(value: str) -> str:
    """``value`` where it can be an Optuna storage, a file's path in full; raises UsageError."""
    if "://" not in value:
        raise UsageError(
            f"--set {OPTUNA_STORAGE}={value}: give a URL such as sqlite:///searches.db"
        )
    if found := _SQLITE.fullmatch(value):
        scheme, file, rest = found.groups()
        if file in (None, "", ":memory:"):
            raise UsageError(
                f"--set {OPTUNA_STORAGE}={value} is gone with the chief: name a file, as in "
                "sqlite:///searches.db"
            )
        # The run may go on from another folder. What begins so is a URI of SQLite's own.
        if not file.startswith("file:"):
            return f"{scheme}/{os.path.abspath(file)}{rest}"
    return value


def _grid_order(value: str) -> str:
    """``value`` itself where a grid can be walked so; raises UsageError."""
    if value not in ("declared", RANDOM_ORDER):
        raise UsageError(f"--set {GRID_ORDER}={value}: give declared or {RANDOM_ORDER}")
    return value


def _on_or_off(value: str) -> str:
    if value not in ("on", "off"):
        raise UsageError(f"--set {EARLY_STOPPING}={value}: give on or off")
    return value


def _keras_alone(key: str) -> Callable[[str, Study], None]:
    """A check that raises UsageError for a study without a Keras model."""

    def check(value: str, study: Study) -> None:
        if study.form != Form.KERAS:
            raise UsageError(
                f"--set {key}={value} is for Keras models, and {study.name} is a function "
                "evaluate(hp, report): leave it out"
            )

    return check


SETTINGS = {
    EARLY_STOPPING: Setting(
        "on|off",
        "whether the EarlyStopping callbacks of a study count (on); off, to compare pruners",
        _on_or_off,
        _keras_alone(EARLY_STOPPING),
    ),
    GRID_ORDER: Setting(
        f"declared|{RANDOM_ORDER}",
        "how sampler grid goes through its points (declared)",
        _grid_order,
    ),
    OPTUNA_STORAGE: Setting(
        "URL",
        "where engine optuna keeps its study (a journal in the run's folder)",
        _storage_url,
        decides_results=False,
    ),
    "precision": Setting(
        "|".join(precision.CHOICES),
        "the numbers a Keras model computes in (float32)",
        precision.parse,
        _keras_alone("precision"),
    ),
}


def parse(text: str) -> tuple[str, str]:
    """The key and the value in ``KEY=VALUE``; raises UsageError, saying what is near."""
    key, equals, value = text.partition("=")
    if key not in SETTINGS:
        raise UsageError(f"--set {text}: unknown key {key!r}: {suggest(key, SETTINGS)}")
    if not equals:
        raise UsageError(f"--set {text}: give a value, {key}={SETTINGS[key].values}")
    return key, SETTINGS[key].parse(value)


def kept() -> list[str]:
    """The keys that decide no results: a run that goes on may have other values of them."""
    return [key for key, setting in SETTINGS.items() if not setting.decides_results]


def parse_kept(text: str) -> tuple[str, str]:
    """The same for a run that goes on."""
    key, value = parse(text)
    if SETTINGS[key].decides_results:
        raise UsageError(
            f"--set {text} makes another search: `run` it under another --id; of a run that "
            f"goes on {' and '.join(kept())} may be other"
        )
    return key, value


def together(pairs: Iterable[tuple[str, str]] | None, decides_results: bool) -> Settings:
    """Of what was typed that which does or does not decide results; each key once."""
    found: Settings = {}
    for key, value in pairs or ():
        if found.setdefault(key, value) != value:
            raise UsageError(f"--set {key} was given as {found[key]} and as {value}: give one")
    return {k: v for k, v in found.items() if SETTINGS[k].decides_results == decides_results}


def check_study(settings: Settings, study: Study) -> None:
    """Raises UsageError for a setting that does not go with ``study``."""
    for key, value in settings.items():
        SETTINGS[key].check_study(value, study)


def described() -> str:
    """All keys for the help of the command line."""
    rows = (f"{key}={row.values}, {row.help}" for key, row in SETTINGS.items())
    return "; ".join(rows)
