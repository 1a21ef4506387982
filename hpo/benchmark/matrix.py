"""The cells of a benchmark: engine, sampler, pruner, workers and seed, each one search."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from hpo.engines.base import check_supported, load_engine
from hpo.errors import TuneFleetError
from hpo.registry import ENGINES, NO_PRUNER, PRUNERS, SAMPLERS, owner_of
from hpo.samplers.base import Sampler, seed_of
from hpo.samplers.random import RandomSampler
from hpo.study import Study
from hpo.trial import Params


@dataclasses.dataclass(frozen=True)
class Cell:
    """One search of the matrix."""

    engine: str
    sampler: str
    pruner: str
    workers: int
    seed: int

    @property
    def method(self) -> str:
        """What is compared: all but the seed and the number of workers."""
        pruned = "" if self.pruner == NO_PRUNER else f" + {self.pruner}"
        return f"{self.engine} / {self.sampler}{pruned}"

    @property
    def name(self) -> str:
        """A name for its file."""
        text = f"{self.engine} {self.sampler} {self.pruner} w{self.workers} s{self.seed}"
        return re.sub(r"[^a-z0-9]+", "-", text)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An engine, a sampler and a pruner that do not go together, or not with the study."""

    engine: str
    sampler: str
    pruner: str
    why: str


def cells_of(
    engines: Sequence[str],
    samplers: Sequence[str],
    pruners: Sequence[str],
    workers: Sequence[int],
    seeds: Sequence[int],
    study: Study,
    check_engine: Callable[[str], None] | None = None,
) -> tuple[list[Cell], list[Pair]]:
    """The cells, those of a seed together so that an unfinished matrix has whole pairs; and
    what is not supported, with why.

    Without ``engines`` each sampler goes with the engine that has it alone, else keras-tuner.
    ``check_engine`` raises TuneFleetError for an engine that does not go with the place.
    Raises UsageError for a name that nothing has.
    """
    for registry, names in ((ENGINES, engines), (SAMPLERS, samplers), (PRUNERS, pruners)):
        for name in names:
            registry.check(name)
    found, unsupported = [], []
    triples = []
    for sampler, pruner in itertools.product(samplers, pruners):
        own = engines or [owner_of(sampler) or "keras-tuner"]
        for engine in own:
            try:
                if check_engine:
                    check_engine(engine)
                check_supported(load_engine(engine), sampler, pruner)
                kind: type[Sampler] = SAMPLERS.load(sampler)
                kind.check_installed()
                kind.check(study)
            except TuneFleetError as error:
                unsupported.append(Pair(engine, sampler, pruner, str(error)))
            else:
                triples.append((engine, sampler, pruner))
    for count, seed in itertools.product(workers, seeds):
        found += [Cell(*triple, count, seed) for triple in triples]
    return found, unsupported


def seeds_of(base: int, count: int) -> list[int]:
    """The seeds of a benchmark: those of fewer are the first of those of more."""
    return [seed_of(base, f"benchmark {number}") for number in range(count)]


def shared_start(study: Study, seed: int, count: int) -> list[Params]:
    """The first points of each search of ``seed`` whose sampler takes given ones."""
    sampler = RandomSampler(study, seed)
    answers: list[Any] = [sampler.ask(f"{number:04d}", []) for number in range(count)]
    return [answer.params for answer in answers if hasattr(answer, "params")]
