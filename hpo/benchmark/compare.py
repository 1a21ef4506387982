"""What can be said of methods that ran on the same seeds, and how surely."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
_RESAMPLES = 2000
# With more no interval of a benchmark becomes clearer.
_MOST_SEEDS = 10_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` None for a single value."""

    value: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def median(values: Sequence[float] | Floats) -> Interval:
    """The median with a bootstrap interval (percentiles)."""
    return _bootstrapped(np.asarray(values, dtype=float), np.median)


def mean(values: Sequence[float] | Floats) -> Interval:
    """The mean with a bootstrap interval (percentiles)."""
    return _bootstrapped(np.asarray(values, dtype=float), np.mean)


def medians(values: Floats) -> tuple[Floats, Floats, Floats]:
    """For (seeds, places): the median over the seeds at each place, and its interval's ends."""
    middle: Floats = np.median(values, axis=0)
    if len(values) < 2:
        return middle, middle, middle
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES // 4, len(values)))
    resampled = np.median(values[drawn], axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return middle, low, high


def _bootstrapped(values: Floats, statistic: Callable[..., Any]) -> Interval:
    from scipy import stats

    estimate = float(statistic(values))
    if len(values) < 2 or np.ptp(values) == 0:
        same = estimate if len(values) > 1 else None
        return Interval(estimate, same, same)
    found = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


@dataclasses.dataclass(frozen=True)
class Versus:
    """One method against another on the same seeds: less is better.

    ``difference`` is the mean of the paired differences, below zero where the method is
    better; ``chance`` how often it is better, a tie counting half. ``p`` is Wilcoxon's, after
    Holm over the comparisons that were made together. ``more_seeds``: about so many more
    would be needed to tell (None: more than anybody has).
    """

    difference: Interval
    chance: Interval
    p: float
    seeds: int
    more_seeds: int | None

    @property
    def differs(self) -> bool:
        """Whether a difference is claimed: the test and the interval must agree."""
        return self.p < ALPHA and self.difference.excludes_zero

    @property
    def verdict(self) -> str:
        """The comparison in words."""
        if self.differs:
            return "better" if self.difference.value < 0 else "worse"
        if self.more_seeds is None:
            return "no detectable difference"
        return f"no detectable difference; {needed(self.more_seeds)}"


def needed(more_seeds: int) -> str:
    """In words, how many seeds are missing."""
    if more_seeds == 1:
        return "about one more seed would be needed"
    return f"about {more_seeds} more seeds would be needed"


def versus(method: Sequence[float], others: Mapping[str, Sequence[float]]) -> dict[str, Versus]:
    """``method`` against each of ``others``, seed by seed.

    Wilcoxon's signed-rank test, two-sided, exact where there are few seeds; its p-values are
    corrected together, as Holm says.
    """
    return of_differences({name: np.subtract(method, own) for name, own in others.items()})


def of_differences(given: Mapping[str, Sequence[float] | Floats]) -> dict[str, Versus]:
    """The same from paired differences, each of which may be of other seeds."""
    pairs = {name: np.asarray(differences) for name, differences in given.items()}
    corrected = holm({name: wilcoxon(differences) for name, differences in pairs.items()})
    return {
        name: _versus(differences, corrected[name], len(pairs))
        for name, differences in pairs.items()
    }


def _versus(differences: Floats, p: float, comparisons: int) -> Versus:
    wins = np.where(differences < 0, 1.0, np.where(differences > 0, 0.0, 0.5))
    return Versus(
        difference=mean(differences),
        chance=mean(wins),
        p=p,
        seeds=len(differences),
        more_seeds=_more_seeds(differences, comparisons),
    )


def wilcoxon(differences: Floats) -> float:
    """The two-sided p-value that paired ``differences`` lie around zero; 1 for none but zeros."""
    from scipy import stats

    # Of a tie the test can say nothing either way.
    told_apart = differences[differences != 0]
    if len(told_apart) < 2:
        return 1.0
    method = "exact" if len(told_apart) <= 25 else "approx"
    return float(stats.wilcoxon(told_apart, method=method).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values of tests that were made together, corrected as Holm says."""
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = least
    return corrected


def _more_seeds(differences: Floats, comparisons: int, power: float = 0.8) -> int | None:
    """How many more pairs a test of this power would need, if these are typical, where it is
    one of so many ``comparisons``.

    The signed-rank test needs pi/3 times the pairs of a t-test where differences are normal.
    """
    from scipy import stats

    spread, middle = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0, 0.0
    middle = abs(float(np.mean(differences)))
    if spread == 0 or middle == 0:
        return None
    quantiles = stats.norm.ppf(1 - ALPHA / comparisons / 2) + stats.norm.ppf(power)
    pairs = math.ceil(math.pi / 3 * (quantiles * spread / middle) ** 2)
    return max(pairs - len(differences), 1) if pairs <= _MOST_SEEDS else None


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Average ranks of methods over ``blocks``, 1 the best, with Friedman's test.

    Two methods whose average ranks differ by less than Nemenyi's ``critical`` difference
    cannot be told apart.
    """

    average: dict[str, float]
    blocks: int
    p: float
    critical: float

    @property
    def differ(self) -> bool:
        """Whether any of the methods differ at all."""
        return self.p < ALPHA


@functools.cache
def _nemenyi(count: int) -> float:
    """The quantile of Nemenyi's test for ``count`` methods; it takes half a second to find."""
    from scipy import stats

    return float(stats.studentized_range.ppf(1 - ALPHA, count, np.inf)) / math.sqrt(2)


def ranks(results: Mapping[str, Sequence[float]]) -> Ranks | None:
    """The ranks of methods by their results in the same blocks, less being better.

    None for fewer than three methods or two blocks, for which Friedman's test is not made.
    """
    from scipy import stats

    matrix = np.array(list(results.values())).T
    if matrix.ndim != 2 or matrix.shape[1] < 3 or matrix.shape[0] < 2:
        return None
    blocks, count = matrix.shape
    average = stats.rankdata(matrix, axis=1).mean(axis=0)
    alike = np.all(matrix == matrix[:, :1])
    p = 1.0 if alike else float(stats.friedmanchisquare(*matrix.T).pvalue)
    critical = _nemenyi(count) * math.sqrt(count * (count + 1) / (6 * blocks))
    named = dict(zip(results, map(float, average), strict=True))
    return Ranks(named, blocks, p, critical)
