"""Imports run one way, and what is heavy is imported where it is used."""

from __future__ import annotations

import ast
import functools
import graphlib
import pathlib
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hpo.registry import SAMPLERS
from tests.support.cli_runs import PATIENCE_S

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A module imports from its own layer and from those before it. A name stands for a module of
# `hpo`, or for all of a package.
LAYERS: list[set[str]] = [
    {"errors", "env", "registry", "trial", "parameter", "space", "protocol", "lock", "child"}
    | {"crew", "address", "token_file", "tls", "file_system", "packages", "json_numbers"}
    | {"reachable", "grid", "leaving", "_internal"},
    {
        "keras_tuner_parts",
        "hyperparameters",
        "discovery",
        "study",
        "data",
        "inputs",
        "leases",
        "weights",
    }
    | {
        "memory",
        "gpu_memory",
        "failures",
        "budget",
        "waiting",
        "schedule",
        "checkpoint",
        "checkpoint_store",
        "attempts",
        "link",
        "told",
        "precision",
        "settings",
        "terms",
        "untried",
    },
    {"ledger", "samplers", "pruners"},
    {"coordinator", "run"},
    {
        "runner",
        "watch",
        "preload",
        "trial_process",
        "probe",
        "evaluation",
        "winner",
        "export",
        "provenance",
    }
    | {"status", "tensorboard", "optuna_mirror"},
    {"fleet"},
    {"engines"},
    {"benchmark"},
    {"cluster"},
]
HEAVY = {
    "tensorflow", "keras", "keras_tuner", "rich", "tensorboard", "grpc", "google", "numpy",
    "cryptography", "h5py", "sklearn", "scipy", "matplotlib", "ray", "optuna", "kubernetes",
}  # fmt: skip


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Every module of the project, by its name."""
    found = {}
    for package in ("hpo", "cluster"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """The project's modules that a module imports, also those within its functions."""
    tree = ast.parse(modules()[module].read_text())
    return frozenset(name for node in ast.walk(tree) for name in _imported(node)) - {module}


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        submodules = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [s if s in modules() else str(node.module) for s in submodules]
    else:
        return
    yield from (name for name in names if name in modules())


def layer_of(module: str) -> int:
    """The number of a module's layer; fails for one that has none."""
    package, *rest = module.split(".")
    name = rest[0] if package == "hpo" and rest else package
    if name == "hpo":
        return 0
    places = [number for number, names in enumerate(LAYERS) if name in names]
    assert len(places) == 1, f"{module} has no place: put {name!r} into LAYERS"
    return places[0]


def test_the_project_has_the_modules_of_the_layers() -> None:
    known = {module.removeprefix("hpo.").partition(".")[0] for module in modules()}
    assert set().union(*LAYERS) <= known


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_from_its_layer_or_from_a_lower_one(module: str) -> None:
    upwards = [name for name in imports_of(module) if layer_of(name) > layer_of(module)]
    assert upwards == [], f"{module} imports what is built on it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imports_of(module) for module in modules()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules())


def test_no_sampler_and_no_engine_knows_another() -> None:
    for package in ("hpo.samplers", "hpo.engines"):
        for module in modules():
            own = ".".join(module.split(".")[:3])
            others = {n for n in imports_of(module) if n.startswith(package + ".")}
            if module.startswith(package + "."):
                assert all(n.startswith((own, f"{package}.base")) for n in others), module


# --- what is imported when ----------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """The packages that are loaded in a new process once ``code`` has run."""
    ending = "\nimport sys\nprint('\\nloaded', *{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + ending],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    name, *packages = done.stdout.splitlines()[-1].split()
    assert name == "loaded"
    return set(packages)


HELP = """
import contextlib
from cluster.cli import VERBS, main
for arguments in [["--help"], *([verb, "--help"] for verb in VERBS)]:
    with contextlib.suppress(SystemExit):
        assert main(arguments) == 0
"""


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by(HELP) & HEAVY == set()


@pytest.mark.parametrize(
    "part",
    [
        "fleet.lead",
        "fleet.worker",
        "engines.keras_tuner",
        "engines.ray_tune.engine",
        "engines.optuna",
    ],
)
def test_whoever_leads_or_serves_a_search_does_without_tensorflow(part: str) -> None:
    loaded = loaded_by(f"import hpo.{part}")
    assert loaded & HEAVY <= {"grpc", "google"}


def test_what_runs_in_a_ray_actor_does_without_tensorflow() -> None:
    loaded = loaded_by("import hpo.engines.ray_tune.agent, hpo.engines.ray_tune.drive")
    assert "ray" in loaded
    assert loaded & {"tensorflow", "keras", "keras_tuner"} == set()


ASKED = """
from hpo.registry import SAMPLERS
from tests.conformance.test_samplers import STUDY
for name in {names}:
    SAMPLERS.load(name)(STUDY, 1).ask("0000", [])
"""


def test_who_searches_without_a_model_never_loads_optuna() -> None:
    named = "\n".join(f"SAMPLERS.load({name!r})" for name in SAMPLERS)
    loaded = loaded_by(f"from hpo.registry import SAMPLERS\n{named}")
    assert loaded & {"optuna", "scipy", "numpy", "torch", "cmaes", "tensorflow"} == set()
    assert "optuna" not in loaded_by(ASKED.format(names=["random", "grid", "qmc"]))


def test_optuna_brings_neither_tensorflow_nor_its_storages_database() -> None:
    loaded = loaded_by(ASKED.format(names=["tpe", "cmaes", "bayesian"]))
    assert "optuna" in loaded
    assert loaded & {"tensorflow", "keras", "keras_tuner", "sqlalchemy", "sklearn"} == set()


def test_help_is_there_at_once() -> None:
    helped = min(_seconds("launch.py", "--help") for _ in range(5))
    bare = min(_seconds("-c", "pass") for _ in range(5))
    # A Python that does nothing is the measure: with numpy alone it takes ten times as long.
    assert helped < 20 * bare


def _seconds(*arguments: str) -> float:
    """Of the processor: on the clock it would be other processes' as well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
