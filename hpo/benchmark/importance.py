"""How much each hyperparameter explains of the differences between points."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from hpo.samplers.optuna.distributions import encode, key_of
from hpo.space import SearchSpace
from hpo.trial import Direction, Params

# With fewer points a forest explains noise.
LEAST = 10


def importance(
    space: SearchSpace, tried: Sequence[tuple[Params, float]], direction: Direction
) -> dict[str, float]:
    """The shares of the variance (they add up to 1) by Optuna's functional ANOVA.

    Only parameters that every point has; {} where there are too few points or no differences.
    """
    if len(tried) < LEAST or len({value for _, value in tried}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if direction is Direction.MAX else "minimize")
    for params, value in tried:
        values, distributions = encode(space, params)
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=value)
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    names = {key_of(parameter): parameter.name for parameter in space.tunable}
    return {names[key]: float(share) for key, share in found.items()}
