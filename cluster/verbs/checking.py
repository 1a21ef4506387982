"""The verbs that look before anything runs: `check` at a study, `doctor` at this machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import Any

from cluster import tables
from cluster.checkup import checkup
from hpo import env
from hpo.study import find_study


def check(args: argparse.Namespace) -> int:
    """Prints what a study is and what can be done with it; raises what is wrong with it."""
    from hpo.probe import read_study

    path = find_study(args.study)
    environ = {**os.environ, **env.data_variables(args.data_dir)}
    found = checkup(read_study(path, environ, args.debug), path)
    if args.json:
        tables.print_json(found)
        return 0
    tables.print_pairs(_study_rows(found))
    print()
    tables.print_table(
        ("parameter", "values", "active if", "default", "levels"),
        [_parameter_row(row) for row in found["space"]],
    )
    print()
    tables.print_pairs(_grid_rows(found))
    print("\nsamplers by engine, with the pruners that go with them:")
    engines = found["supported"]
    samplers = list(dict.fromkeys(name for row in engines.values() for name in row))
    rows = [
        (sampler, *(", ".join(engines[engine][sampler]) or "-" for engine in engines))
        for sampler in samplers
    ]
    tables.print_table(("sampler", *engines), rows)
    return 0


def _study_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    tuned = {row["name"] for row in found["space"]}
    rows = [
        ("study", f"{found['study']} ({found['file']})"),
        ("form", "build_model(hp)" if found["form"] == "keras" else "evaluate(hp, report)"),
        ("objective", f"{found['objective']}, {found['direction']}"),
    ]
    for name, words in (("epochs", "epochs"), ("batch_size", "batch size")):
        if found[name] is not None:
            rows.append((words, "tuned" if name in tuned else str(found[name])))
    return rows


def _parameter_row(row: dict[str, Any]) -> tuple[str, ...]:
    conditions = (f"{c['name']} is {_either(c['values'])}" for c in row["conditions"])
    levels = "none" if row["levels"] is None else str(row["levels"])
    default = tables.number(row["default"])
    return row["name"], row["values"], " and ".join(conditions), default, levels


def _either(values: Iterable[Any]) -> str:
    return " or ".join(tables.number(value) for value in values)


def _grid_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    endless = found["grid"]["without_levels"]
    if endless:
        levels = ", ".join(f"{name!r}: [...]" for name in endless)
        advice = f"give a step, or GRID = {{{levels}}} in the study"
        rows = [("grid", f"no points, since {', '.join(endless)} have no levels: {advice}")]
    else:
        rows = [("grid", f"{found['grid']['points']} points")]
    for name in found["inactive"]:
        rows.append(("warning", f"{name!r} is never active: its parent never has such a value"))
    return rows + [("warning", text) for text in found["warnings"]]


def doctor(args: argparse.Namespace) -> int:
    """Prints what this machine has and lacks; 1 if something is missing."""
    from cluster.machine import examine

    found = examine(args.runs)
    if args.json:
        tables.print_json(found)
    else:
        tables.print_pairs(_machine_rows(found))
    return 1 if found["missing"] else 0


def _machine_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory, data = found["memory"], found["fashion_mnist"]
    rows = [("python", found["python"])]
    rows += [(row["name"], row["installed"] or "missing") for row in found["packages"]]
    rows += [
        ("cores", str(found["cores"])),
        ("memory", f"{tables.size(memory['available'])} free of {tables.size(memory['total'])}"),
        ("gpus", ", ".join(found["gpus"]) or "none"),
    ]
    for name, disk in found["disk"].items():
        rows.append((name, f"{disk['path']}, {tables.size(disk['free'])} free"))
    rows.append(("open files", str(found["open_files"] or "no limit")))
    rows.append(("loopback", "ports can be bound" if found["loopback"] else "missing"))
    rows.append(("fashion-mnist", data["folder"] or "missing"))
    rows += [("warning", text) for text in found["warnings"]]
    rows += [("missing", text) for text in found["missing"]]
    return rows
