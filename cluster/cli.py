"""The verbs of the command line: their options, and which module does each."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cluster import options
from cluster.interrupts import TerminatedError, ignore_signals, raise_signals
from cluster.options import Parser
from hpo._internal import process_tree
from hpo.errors import TuneFleetError, UsageError
from hpo.leaving import leave
from hpo.registry import suggest


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb: the module of ``cluster.verbs`` that does it, and what it takes."""

    module: str
    help: str
    add_options: Callable[[Parser], None]
    # It goes to other places by itself, where the others are done by `cluster.verbs.elsewhere`.
    travels: bool = False


def _run(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a name from studies/, or your file")
    options.search(parser)
    options.limits(parser)
    options.place(parser)


def _elsewhere(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a name from studies/, or your file")
    options.elsewhere(parser)
    options.search(parser)
    options.limits(parser)
    options.size(parser)
    options.pods(parser)
    options.ray(parser)


def _submit(parser: Parser) -> None:
    _elsewhere(parser)
    options.cluster(parser)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    add("--unchecked", action="store_true", help="do not ask first whether it fits there")


def _list(parser: Parser) -> None:
    options.json_output(parser)
    options.elsewhere(parser, required=False)
    options.cluster(parser)
    options.ray(parser)


def _doctor(parser: Parser) -> None:
    _list(parser)
    options.size(parser)
    options.pods(parser)


def _one_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's id, or its handle")
    options.cluster(parser, with_namespace=False)


def _read_run(parser: Parser) -> None:
    _one_run(parser)
    options.json_output(parser)


def _best(parser: Parser) -> None:
    _read_run(parser)
    options.data_dir(parser)


def _export(parser: Parser) -> None:
    _one_run(parser)
    options.out(parser)
    options.data_dir(parser)


def _logs(parser: Parser) -> None:
    _one_run(parser)
    parser.add_argument("which", nargs="?", metavar="TRIAL", help="a trial's or a worker's id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    options.json_output(parser)


def _stop(parser: Parser) -> None:
    _one_run(parser)
    parser.add_argument("--now", action="store_true", help="put running trials back at once")


def _resume(parser: Parser) -> None:
    _one_run(parser)
    parser.add_argument("--trials", metavar="+N", help="so many more points than before")
    options.limits(parser)
    options.kept(parser)
    options.place(parser)


def _retry(parser: Parser) -> None:
    _one_run(parser)
    parser.add_argument("--failed", action="store_true", help="those that failed")
    options.limits(parser)
    options.kept(parser)
    options.place(parser)


def _scale(parser: Parser) -> None:
    _one_run(parser)
    options.workers(parser, required=True)


def _tensorboard(parser: Parser) -> None:
    parser.add_argument(
        "run", nargs="+", metavar="RUN", help="the run's id; several are shown together"
    )
    options.cluster(parser, with_namespace=False)
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="where it listens")
    parser.add_argument("--port", type=options.number(int, 0, 65535), default=6006, metavar="P")
    seconds = options.number(float, 0)
    parser.add_argument("--wait", type=seconds, default=0, metavar="S", help="for runs to begin")
    files = parser.add_mutually_exclusive_group()
    anew = "write its files anew from the ledger first"
    files.add_argument("--rebuild", action="store_true", help=anew)
    beside = "beside a chief: write nothing, whether the chief is there or about to come back"
    files.add_argument("--beside", action="store_true", help=beside)


def _check(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a name from studies/, or your file")
    options.data_dir(parser)
    options.json_output(parser)


def _record(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a name from studies/, or your file")
    options.recording(parser)
    options.data_dir(parser)


def _benchmark(parser: Parser) -> None:
    parser.add_argument("study", nargs="?", metavar="STUDY", help="a name, or your file")
    options.benchmark(parser)
    options.data_dir(parser)
    options.json_output(parser)
    options.elsewhere(parser, required=False)
    options.pods(parser)
    options.cluster(parser)
    options.ray(parser)


def _report(parser: Parser) -> None:
    parser.add_argument("run", nargs="+", metavar="RUN", help="runs, or a benchmark's id")
    options.cluster(parser, with_namespace=False)
    out = "the report's folder (RUN/report)"
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help=out)
    options.json_output(parser)


VERBS = {
    "run": Verb("search", "search here, in the foreground", _run),
    "submit": Verb("elsewhere", "the same search elsewhere", _submit),
    "render": Verb("elsewhere", "print what `submit` would send", _elsewhere),
    "resume": Verb("search", "go on with what was interrupted", _resume),
    "retry": Verb("search", "run the failed trials again", _retry),
    "scale": Verb("control", "more or fewer workers while it runs", _scale),
    "stop": Verb("control", "let running trials end, then stop", _stop),
    "list": Verb("reading", "the runs there are", _list),
    "status": Verb("reading", "where a run stands", _read_run),
    "trials": Verb("reading", "a row for each attempt", _read_run),
    "watch": Verb("reading", "follow a run live", _read_run),
    "best": Verb("reading", "the winner and its test figures", _best),
    "export": Verb("exporting", "the winner's model, with how it came about", _export),
    "logs": Verb("reading", "the chief's, a worker's or a trial's log", _logs),
    "tensorboard": Verb("tensorboard", "open TensorBoard HParams", _tensorboard),
    "benchmark": Verb("benchmark", "which search is worth its hours", _benchmark, travels=True),
    "report": Verb("report", "tables and pictures, as a page", _report, travels=True),
    "record": Verb("recording", "learning curves, kept for replay", _record),
    "check": Verb("checking", "is a study sound, and what is supported", _check),
    "doctor": Verb("checking", "what this machine, or another place, lacks", _doctor),
}


def command(arguments: Sequence[str]) -> NoReturn:
    """Does what was typed and leaves, once every process that was started for it is gone."""
    raise_signals()
    try:
        status = _until_interrupted(arguments)
    finally:
        # Whoever cannot wait any longer still has SIGKILL, and then the watchdog does the same.
        ignore_signals()
        _end_processes()
    leave(status)


def _until_interrupted(arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except KeyboardInterrupt:
        ignore_signals()
        return 130
    except TerminatedError:
        ignore_signals()
        return 75


def _end_processes() -> None:
    if left := process_tree.end_all():
        ids = ", ".join(map(str, sorted(left)))
        print(
            f"launch.py: still running, since the kernel does not end them: {ids}: "
            "they wait for a device or a file system, or belong to another user",
            file=sys.stderr,
        )


def main(arguments: Sequence[str]) -> int:
    """Does what was typed; answers the exit status. Errors are one line on standard error."""
    debug = "--debug" in arguments
    try:
        return _dispatch(list(arguments))
    except TuneFleetError as error:
        if debug:
            traceback.print_exc()
        print(f"launch.py: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader of a pipe such as `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}: {suggest(name, VERBS)}")
    verb = VERBS[name]
    parser = Parser(prog=f"launch.py {name}", description=verb.help, allow_abbrev=False)
    verb.add_options(parser)
    options.common(parser)
    parsed = parser.parse_all(rest)
    parsed.arguments = rest
    function = name if name != "list" else "list_runs"
    module = _module("elsewhere" if _is_elsewhere(parsed) and not verb.travels else verb.module)
    if module.__name__ != f"cluster.verbs.{verb.module}" and hasattr(parsed, "run"):
        return int(module.of_run(name, parsed))
    return int(getattr(module, function)(parsed))


def _module(name: str) -> Any:
    return importlib.import_module(f"cluster.verbs.{name}")


def _is_elsewhere(parsed: argparse.Namespace) -> bool:
    """Whether it is about another place than this host."""
    typed = getattr(parsed, "run", None) or ""
    words = typed if isinstance(typed, list) else [typed]
    # No id of a run here has a colon.
    return getattr(parsed, "on", None) is not None or any(":" in text for text in words)


def _help() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    return (
        "TuneFleet tunes Keras models across machines.\n\n"
        "usage: python launch.py VERB [options]\n\n"
        f"{rows}\n\n"
        "`python launch.py VERB --help` says what a verb takes."
    )
