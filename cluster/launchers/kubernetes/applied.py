"""The request of a run that was applied by hand, from what its chief is told to begin with."""

from __future__ import annotations

import re
import shlex

from cluster import options
from cluster.launchers.kubernetes.templates import Manifest, templates_of
from hpo.errors import UsageError
from hpo.run import SearchRequest

# "$(STUDY)" in a container's arguments, "$STUDY" in an entrypoint's shell.
_VARIABLE = re.compile(r"\$\((\w+)\)|\$(\w+)")


def told_request(chief: Manifest) -> SearchRequest | None:
    """What a chief's Job or a RayJob asks for; None where `run` would refuse how it is told.

    The study's digest, and points to start with, only the run itself knows.
    """
    parser = options.Parser(prog="launch.py run", allow_abbrev=False)
    parser.add_argument("study")
    options.search(parser)
    try:
        words = _words(chief)
        if "run" not in words:
            return None
        # What is no part of a request, such as limits, is left aside.
        told, _ = parser.parse_known_args(words[words.index("run") + 1 :])
    except (UsageError, ValueError):
        return None
    return SearchRequest(
        study=told.study,
        study_digest="",
        engine=told.engine,
        sampler=told.sampler,
        pruner=told.pruner,
        trials=told.trials,
        epochs=told.epochs,
        train_examples=told.train_examples,
        seed=told.seed,
    )


def _words(chief: Manifest) -> list[str]:
    """What the chief is told, its variables in place; ValueError for a quote without its end."""
    template, _ = templates_of(chief)[0]
    container = template["spec"]["containers"][0]
    named = {row["name"]: str(row["value"]) for row in container.get("env", ()) if "value" in row}
    entrypoint = chief["spec"].get("entrypoint")
    words = shlex.split(entrypoint) if entrypoint else container.get("args", ())
    return [_VARIABLE.sub(lambda m: named.get(m[1] or m[2], m[0]), word) for word in words]
