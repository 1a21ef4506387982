"""The options of the command line, each defined once and shared by the verbs that take it."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hpo import settings
from hpo.errors import UsageError
from hpo.registry import suggest
from hpo.schedule import Schedule


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong and what is near, instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see `launch.py {self.prog.split()[-1]} --help`")

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses; raises UsageError for an unknown option, with the one that is near."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [text for action in self._actions for text in action.option_strings]
            name = unknown[0].partition("=")[0]
            if name.startswith("-"):
                raise UsageError(f"unknown option {name!r}: {suggest(name, known)}")
            raise UsageError(f"unexpected argument {name!r}: {self.format_usage().strip()}")
        return parsed


def number(
    kind: type[int] | type[float], low: float, high: float = float("inf")
) -> Callable[[str], int | float]:
    """An option's type: a number of ``kind`` from ``low`` to ``high``."""

    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not low <= value <= high:
            upper = "" if high == float("inf") else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(
                f"{text} is out of range: give at least {low:g}{upper}"
            )
        return value

    return parse


def common(parser: Parser) -> None:
    """What every verb takes."""
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        default=pathlib.Path("runs"),
        metavar="DIR",
        help="the folder of runs (runs/)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def json_output(parser: Parser) -> None:
    """What every reading verb takes."""
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def data_dir(parser: Parser) -> None:
    """What every verb takes that may load a study's data."""
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="the data set's files")


def out(parser: Parser) -> None:
    """Where a model is written."""
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE", help="a name that ends in .keras"
    )


def _how_to_train(parser: Parser) -> None:
    add = parser.add_argument
    add("--epochs", type=number(int, 1), metavar="N", help="at most so many epochs a trial")
    add("--train-examples", type=number(int, 1), metavar="N", help="train on so many examples")


def _gpus_each(text: str) -> int | float:
    """How many GPUs: a whole number, or a part of one."""
    try:
        return number(int, 0)(text)
    except argparse.ArgumentTypeError:
        try:
            part = float(text)
        except ValueError:
            part = 0.0
        if not 0 < part < 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a whole number, or a part of one GPU such as 0.25"
            ) from None
        return part


def _gpus(parser: Parser) -> None:
    parser.add_argument(
        "--gpus-per-worker",
        "--gpus-per-trial",
        dest="gpus_per_worker",
        type=_gpus_each,
        metavar="N",
        help="GPUs for each worker (1 where there are any); by engine ray also a part, as 0.25",
    )


def recording(parser: Parser) -> None:
    """What to record."""
    add, some = parser.add_argument, number(int, 1, 10**6)
    add("--configurations", type=some, default=64, metavar="N", help="so many points (64)")
    add("--seeds", type=number(int, 1, 100), default=2, metavar="N", help="curves of each (2)")
    add("--points", default="random", metavar="NAME", help="random, qmc or grid (random)")
    add("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N", help="of all draws (0)")
    _how_to_train(parser)
    workers(parser)
    _gpus(parser)
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="the table's new folder")
    add("--id", metavar="NAME", help="the recording's id (made from the study and the time)")


def _listed(kind: Callable[[str], int | float] | type[str]) -> Callable[[str], list[Any]]:
    """An option's type: several of ``kind``, with commas between them."""

    def parse(text: str) -> list[Any]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r} has an empty place: give a,b,c")
        return list(dict.fromkeys(kind(part) for part in parts))

    return parse


def benchmark(parser: Parser) -> None:
    """What to compare, at which budget, and where."""
    add = parser.add_argument
    names, some, seconds = _listed(str), number(int, 1, 10**6), number(float, 0)
    add("--engines", type=names, metavar="A,B", help="engines (each sampler's own)")
    add("--samplers", type=names, metavar="A,B", help="samplers (random,grid,bayesian)")
    add("--pruners", type=names, metavar="A,B", help="pruners (none)")
    add("--seeds", type=number(int, 1, 1000), metavar="N", help="searches each (5; replayed: 20)")
    add("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N", help="of all draws (0)")
    counts = _listed(number(int, 1, 100_000))
    add("--workers", type=counts, metavar="N,M", help="trials at a time (2; replayed: 8)")
    trials = "points of each search (10; replayed: half of the table)"
    add("--trials", type=some, metavar="N", help=trials)
    add("--node-seconds", type=number(float, 1), metavar="S", help="or so much of all nodes' time")
    add("--shared", type=number(int, 0), metavar="N", help="first points alike (a quarter, to 5)")
    add("--skip-unsupported", action="store_true", help="go on without what does not go together")
    _how_to_train(parser)
    _gpus(parser)
    add("--top", type=number(int, 0, 100), default=3, metavar="K", help="winners trained anew (3)")
    fresh = "with so many fresh seeds (5)"
    add("--fresh-seeds", type=number(int, 1, 100), default=5, metavar="N", help=fresh)
    add("--published", action="store_true", help="the published systems, with their samplers")
    add("--replay", type=pathlib.Path, metavar="TABLE", help="search this table instead")
    draw = "DISTRIBUTION"
    add("--start-delay", metavar=draw, help="replayed: seconds until a node joins (0)")
    add("--node-speed", metavar=draw, help="replayed: times the table's, as lognormal:1,0.2 (1)")
    add("--preempt", metavar=draw, help="replayed: seconds a node lives, as exp:3600 (for ever)")
    add("--call-s", type=seconds, metavar="S", help="replayed: what a call costs the chief (0.001)")
    add("--suggest-s", type=seconds, metavar="S", help="replayed: of a suggestion (as measured)")
    add("--id", metavar="NAME", help="the benchmark's id (made from the study and the time)")


def search(parser: Parser) -> None:
    """What to search."""
    add = parser.add_argument
    engines = "who drives: keras-tuner, ray, optuna (keras-tuner)"
    add("--engine", default="keras-tuner", metavar="NAME", help=engines)
    add("--sampler", default="random", metavar="NAME", help="what to try (random)")
    add(
        "--pruner",
        default="none",
        metavar="NAME",
        help="which trials to end early: median, asha, hyperband (none)",
    )
    add("--trials", type=number(int, 1, 10**9), metavar="N", help="points to try (10; grid: all)")
    _how_to_train(parser)
    add("--seed", type=number(int, 0, 2**31 - 1), metavar="N", help="0 is a seed (drawn)")
    add(
        "--set",
        type=settings.parse,
        action="append",
        metavar="KEY=VALUE",
        help=f"settings that few need, may be repeated: {settings.described()}",
    )
    add("--start", type=pathlib.Path, metavar="FILE", help="points to try first, as JSON")
    add("--from", dest="from_run", metavar="RUN", help="begin with what this run found")
    add("--id", metavar="NAME", help="the run's id (made from the study and the time)")
    add("--checkpoint-every", type=Schedule.parse, metavar="N|Mm", help="epochs or minutes (2m)")
    add("--checkpoint-gb", type=number(float, 0.0), metavar="GB", help="room for these (10)")
    add("--lease", type=number(float, 1, 3600), metavar="S", help="a worker's lease (30 s)")


# The limits of a search by their options' names, as hpo.protocol.Rules names them.
LIMITS = {
    "max_hours": "max_hours",
    "max_gpu_hours": "max_gpu_hours",
    "trial_timeout": "trial_timeout_s",
    "lost_attempts": "lost_attempts",
    "code_retries": "code_retries",
    "oom_retries": "oom_retries",
    "same_error": "same_error",
    "without_workers": "without_workers_s",
}


def limits(parser: Parser) -> None:
    """What ends a trial or a search early; may be other at each start of a run."""
    add = parser.add_argument
    some, hours = number(int, 1), number(float, 0.001)
    add("--max-hours", type=hours, metavar="H", help="end after H hours with trials running")
    add("--max-gpu-hours", type=hours, metavar="H", help="end after H hours of a GPU each")
    add("--trial-timeout", type=number(float, 1), metavar="S", help="end longer trials (never)")
    add("--lost-attempts", type=some, metavar="N", help="as many may die with their worker (5)")
    retries = number(int, 0)
    add("--code-retries", type=retries, metavar="N", help="again after its code raised (1)")
    add("--oom-retries", type=retries, metavar="N", help="again, alone, when memory ran out (1)")
    add("--without-workers", type=number(float, 1), metavar="S", help="then give up (3600)")
    add("--same-error", type=some, metavar="N", help="end when so many trials fail alike (3)")


def kept(parser: Parser) -> None:
    """Settings that decide no results: of a run that goes on they may be other."""
    parser.add_argument(
        "--set",
        type=settings.parse_kept,
        action="append",
        metavar="KEY=VALUE",
        help=f"of its settings {' and '.join(settings.kept())}",
    )


def workers(parser: Parser, required: bool = False) -> None:
    """How many workers there are."""
    parser.add_argument(
        "--workers",
        type=number(int, 1, 1000),
        required=required,
        metavar="N",
        help="trials at a time" + ("" if required else " (2)"),
    )


def size(parser: Parser) -> None:
    """With how much to search, wherever that is."""
    workers(parser)
    _gpus(parser)
    data_dir(parser)
    parser.add_argument(
        "--grace",
        type=number(float, 0, 86400),
        metavar="S",
        help="how long SIGTERM lets running trials go on (30 s)",
    )


def place(parser: Parser) -> None:
    """Where and with how much to search here."""
    size(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="H", help="where the chief listens (127.0.0.1)")
    add("--port", type=number(int, 0, 65535), default=0, metavar="P", help="its port (a free one)")
    add(
        "--insecure",
        action="store_true",
        help="let KerasTuner's own workers join, without a token (loopback only)",
    )


def elsewhere(parser: Parser, required: bool = True) -> None:
    """Which other place a verb is about."""
    words = (
        "k8s: a Kubernetes cluster; rayjob: KubeRay on one; ray: a Ray cluster, on VMs or anywhere"
    )
    parser.add_argument("--on", required=required, metavar="PLACE", help=words)


def cluster(parser: Parser, with_namespace: bool = True) -> None:
    """Which Kubernetes cluster, as kubectl says it; a handle names the namespace itself."""
    add = parser.add_argument
    add("--kubeconfig", type=pathlib.Path, metavar="FILE", help="(KUBECONFIG, or ~/.kube/config)")
    add("--context", metavar="NAME", help="a context of that file (its current one)")
    if with_namespace:
        add("--namespace", metavar="NAME", help="a namespace (the context's)")


def ray(parser: Parser) -> None:
    """Which Ray cluster, and what runs there."""
    add = parser.add_argument
    dashboard = "the dashboard of --on ray (127.0.0.1:8265)"
    add("--address", metavar="HOST:PORT", help=dashboard)
    add("--python", metavar="PATH", help="the interpreter there (python)")


def pods(parser: Parser) -> None:
    """What the pods of a search are made of."""
    add = parser.add_argument
    add("--image", metavar="NAME", help="the image, as you pushed it (tunefleet:1)")
    add("--worker-image", metavar="NAME", help="the workers' (the same; with GPUs NAME-gpu:TAG)")
    policies = ("Always", "IfNotPresent", "Never")
    add("--pull-policy", choices=policies, metavar="P", help=f"of images: {', '.join(policies)}")
    add("--cpus", metavar="N", help="cores for each worker (2)")
    add("--memory", metavar="Q", help="memory for each worker (6Gi)")
    add("--gpu-resource", metavar="NAME", help="what a GPU is called there (nvidia.com/gpu)")
    add("--storage", metavar="Q", help="room for the run (20Gi)")
    add("--storage-class", metavar="NAME", help="of the run's volume (the cluster's default)")
    add("--queue", metavar="NAME", help="wait in this Kueue queue")
    add("--priority", metavar="NAME", help="the pods' PriorityClass")
    add("--spot", action="store_true", help="workers prefer nodes that may be taken away")
    add("--store", metavar="URI", help="a copy of the run in an object store, such as s3://B/P")
    add("--monitoring", action="store_true", help="figures for Prometheus, by its operator")


def size_again(args: argparse.Namespace) -> list[str]:
    """The options of :func:`size` that were typed, for another `launch.py`."""
    return typed(args, ("workers", "gpus_per_worker", "data_dir", "grace"))


def typed(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Those of the options ``names`` that were typed, for another `launch.py`."""
    found = []
    for name in names:
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        if value is True:
            found.append(option)
        elif value is not None and value is not False:
            found.append(f"{option}={value}")
    return found


def typed_again(
    arguments: Sequence[str], of: Sequence[Callable[[Parser], None]] = (search, limits)
) -> dict[str, list[str]]:
    """The options ``of`` a search among ``arguments`` as they were typed, by name.

    For a search that another `launch.py` is to do.
    """
    parser = Parser(prog="launch.py run", allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for add_options in of:
        add_options(parser)
    for action in parser._actions:
        action.type, action.default = None, argparse.SUPPRESS
    found, _ = parser.parse_known_args(arguments)
    return {
        "--" + ("from" if name == "from_run" else name.replace("_", "-")): (
            value if isinstance(value, list) else [value]
        )
        for name, value in vars(found).items()
    }
