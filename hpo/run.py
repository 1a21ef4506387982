"""A run: what was asked, and the folder in which everything of it lies.

<runs>/<id>/ledger.db      the one durable state (hpo/ledger.py)
            study.py       the study's file as it was when the run began
            known.json     what of another run the sampler was told at the start
            token          opens the chief to whoever can read it: the owner alone
            tls.pem        the key and certificate of a chief that served beyond loopback
            weights/       the best trial's weights
            checkpoints/   what unfinished trials go on from
            tensorboard/   projected from the ledger
            optuna.journal the same as an Optuna study, where engine `optuna` leads
            logs/          the chief's, the workers' and the trials' logs
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from typing import Any

from hpo import file_system, ledger, settings, token_file
from hpo.crew import Crew
from hpo.errors import PlaceError, RunError, TuneFleetError, UsageError
from hpo.lock import Lock
from hpo.protocol import Rules
from hpo.pruners import Pruner
from hpo.registry import PRUNERS, SAMPLERS, suggest
from hpo.samplers import known
from hpo.samplers.base import Outcome, Sampler
from hpo.samplers.start import StartingPoints
from hpo.schedule import Schedule
from hpo.settings import Settings
from hpo.study import Study, digest_of, most_steps
from hpo.trial import Params

DEFAULT_CHECKPOINT_GB = 10.0
_KNOWN = "known.json"

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class SearchRequest:
    """What to search and by which rules: all that decides the results, and nothing else.

    ``study`` is the path of the study's file, ``study_digest`` the hash of its content.
    ``trials`` None means the default: ten, or all where the sampler has an end of its own.
    ``epochs`` caps a trial's epochs,
    ``train_examples`` counts after the validation split; None leaves both to the study.
    ``seed`` None draws one. ``start`` are points that are tried before the sampler's own,
    ``settings`` those of ``--set`` that decide results, ``from_run``
    is the run whose results it began with.
    """

    study: str
    study_digest: str
    engine: str
    sampler: str
    pruner: str
    trials: int | None
    epochs: int | None
    train_examples: int | None
    seed: int | None
    start: list[Params] | None = None
    settings: Settings = dataclasses.field(default_factory=dict)
    from_run: str | None = None

    def differences(self, other: SearchRequest) -> list[str]:
        """The fields in which ``other`` is another request; a seed left open fits any."""
        fields = [field.name for field in dataclasses.fields(self)]
        if self.seed is None:
            fields.remove("seed")
        return [name for name in fields if getattr(self, name) != getattr(other, name)]


class Run:
    """The folder of one run; raises RunError where there is none."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.token_file = folder / "token"
        self.weights = folder / "weights"
        self.logs = folder / "logs"
        self.checkpoints = folder / "checkpoints"
        self.tensorboard = folder / "tensorboard"
        reader = self.reader()
        meta = reader.meta()
        reader.close()
        self.request = SearchRequest(**meta["request"])
        self.study = Study.from_json(meta["study"])
        self.created_at = float(meta["created_at"])
        self.wanted = int(meta["wanted"])
        self.lease_s = float(meta["lease_s"])
        # The rules that may be other ones at the next start; see hpo.protocol.Rules.
        self.schedule = Schedule(**meta.get("schedule", {}))
        self.checkpoint_gb = float(meta.get("checkpoint_gb", DEFAULT_CHECKPOINT_GB))
        self.limits: dict[str, Any] = meta.get("limits", {})
        self.settings: Settings = self.request.settings | meta.get("settings", {})
        self.crew = Crew.from_meta(meta)
        self.workers = self.crew.size
        # How many its GPUs were enough for at its latest start; None: as many as one likes.
        self.most_workers: int | None = meta.get("most_workers")

    @property
    def token(self) -> str:
        """The secret that every call to the chief must carry."""
        return token_file.read(self.token_file).token

    @property
    def seed(self) -> int:
        """The run's seed: the one asked for, or the one drawn."""
        assert self.request.seed is not None
        return self.request.seed

    @property
    def chief_lives(self) -> bool:
        """Whether a chief holds the ledger now."""
        return Lock.held(self.folder / ledger.LOCK)

    @property
    def supervised(self) -> bool:
        """Whether a `run` keeps the processes of this run alive now."""
        return Lock.held(self.supervisor_lock)

    @property
    def supervisor_lock(self) -> pathlib.Path:
        """The lock that a `run` holds as long as it looks after the run."""
        return self.folder / "supervisor.lock"

    @property
    def rules(self) -> Rules:
        """What its coordinator goes by."""
        return Rules(
            **self.limits,
            wanted=self.wanted,
            objective=self.study.objective,
            direction=self.study.direction,
            seed=self.seed,
            engine=self.request.engine,
            sampler=self.request.sampler,
            study_digest=self.study.digest,
            lease_s=self.lease_s,
            ahead=SAMPLERS.load(self.request.sampler).ignores_results,
        )

    def sampler(self) -> Sampler:
        """The sampler of this run, told of nothing yet."""
        kind = SAMPLERS.load(self.request.sampler)
        kind.check_installed()
        made: Sampler = kind(self.study, self.seed)
        if self.settings.get(settings.GRID_ORDER) == settings.RANDOM_ORDER:
            made.shuffle()
        if self.request.from_run:
            made.learn(known.read(self.folder / _KNOWN))
        return StartingPoints(made, self.request.start) if self.request.start else made

    def pruner(self) -> Pruner:
        """The pruner of this run, told of nothing yet."""
        study = self.study
        made: Pruner = PRUNERS.load(self.request.pruner)(
            study.direction, most_steps(study), self.seed
        )
        return made

    def study_path(self) -> pathlib.Path:
        """The study's file as the run began with it: the original, or the copy if that changed."""
        original = pathlib.Path(self.request.study)
        if original.is_file() and digest_of(original) == self.study.digest:
            # Beside it may lie modules that it imports.
            return original
        return self.folder / "study.py"

    def trial_log(self, trial_id: str, attempt: int) -> pathlib.Path:
        """Where the log of an attempt lies once it has ended."""
        return self.logs / f"trial-{trial_id}-{attempt}.log"

    def reader(self) -> ledger.LedgerReader:
        """A reader of the run's ledger."""
        return ledger.LedgerReader(self.folder)


def check_id(run_id: str) -> str:
    """``run_id`` itself where it can name a run; raises UsageError."""
    if not _ID.fullmatch(run_id):
        raise UsageError(
            f"bad id {run_id!r}: use at most 40 small letters, digits and inner dashes"
        )
    return run_id


def new_id(study: Study) -> str:
    """A fresh id that says which study it is and when it began."""
    base = re.sub(r"[^a-z0-9]+", "-", study.name.lower()).strip("-")[:16].strip("-") or "run"
    return f"{base}-{time.strftime('%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def open_run(runs: pathlib.Path, run_id: str) -> Run:
    """The run ``run_id`` under ``runs``; raises RunError, saying what is near."""
    if not (runs / run_id / ledger.FILE).is_file():
        known = [folder.name for folder in _folders(runs)]
        raise RunError(f"no run {run_id!r} in {runs}: {suggest(run_id, known)}")
    return Run(runs / run_id)


def list_runs(runs: pathlib.Path) -> tuple[list[Run], list[TuneFleetError]]:
    """Every run under ``runs``, the oldest first, and why others could not be read."""
    found, unreadable = [], []
    for folder in _folders(runs):
        try:
            found.append(Run(folder))
        except TuneFleetError as error:
            unreadable.append(error)
    return sorted(found, key=lambda run: run.created_at), unreadable


def _folders(runs: pathlib.Path) -> list[pathlib.Path]:
    return [p.parent for p in runs.glob(f"*/{ledger.FILE}") if _ID.fullmatch(p.parent.name)]


def create_run(
    runs: pathlib.Path,
    run_id: str,
    request: SearchRequest,
    study: Study,
    study_file: pathlib.Path,
    terms: dict[str, Any],
    history: Sequence[Outcome] = (),
) -> Run:
    """Makes the folder of a new run; it appears whole or not at all.

    ``terms`` may change from one start of the run to the next: ``wanted``, how many points
    are to be tried, ``lease_s``, ``limits``, ``workers`` and those ``settings`` that decide
    no results. ``history`` is what the sampler is told of ``from_run``.
    Raises RunError if the id is taken, PlaceError if the disk refuses.
    """
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    recorded = dataclasses.replace(request, seed=seed)
    meta = {
        "request": dataclasses.asdict(recorded),
        "study": study.to_json(),
        **terms,
        "created_at": time.time(),
    }
    # By the name that was typed, and before anything is made there.
    file_system.check(runs)
    draft = runs / f".{run_id}.{secrets.token_hex(4)}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o755)
        _fill(draft, meta, study_file)
        if history:
            known.write(draft / _KNOWN, history)
        draft.rename(runs / run_id)
    except OSError as error:
        if (runs / run_id).exists():
            raise RunError(f"run {run_id!r} was just made by another process: attach") from error
        raise PlaceError(f"cannot make {runs / run_id}: {error.strerror}: see --runs") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Run(runs / run_id)


def _fill(draft: pathlib.Path, meta: dict[str, Any], study_file: pathlib.Path) -> None:
    ledger.create(draft, meta)
    shutil.copyfile(study_file, draft / "study.py")
    for name in ("logs", "weights", "tensorboard"):
        (draft / name).mkdir()
    token_file.write(draft / "token", token_file.Secret(token_file.new_token()))
