"""Engine `ray` on a Ray cluster of several hosts that have GPUs."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from hpo.engines.ray_tune.modules import own_modules
from tests.support.cli_runs import PATIENCE_S, ROOT, HeldRun, launch, wait_for_end, wait_until
from tests.support.network_namespaces import Network
from tests.support.ray_namespace_hosts import RayHosts

STUDY = """
import os
import pathlib
import time

import shapes

OBJECTIVE = "loss"
GO = pathlib.Path({go!r})


def evaluate(hp, report):
    from bumps.round import bump

    x = hp.Float("x", 0.0, 1.0)
    # What Ray gave this trial's process to see.
    gpu = int(os.environ.get("CUDA_VISIBLE_DEVICES", "-1"))
    # Each trial waits until it is told that all has been seen.
    report(1, {{"loss": shapes.bowl(x) + bump(x), "gpu": gpu}})
    while not GO.exists():
        time.sleep(0.02)
    return {{}}
"""


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """Where a person's files lie. Short: Ray's sockets have their names in it."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="rc-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def write_study(folder: pathlib.Path, go: str = "") -> pathlib.Path:
    """A study with a module and a package of its own beside it; its trials wait for ``go``."""
    (folder / "bumps").mkdir(parents=True)
    (folder / "bumps" / "__init__.py").touch()
    (folder / "bumps" / "round.py").write_text("def bump(x):\n    return 0.1 * (x > 0.5)\n")
    (folder / "shapes.py").write_text("import axes\n\nbowl = lambda x: axes.square(x - 0.3)\n")
    (folder / "axes.py").write_text("square = lambda x: x * x\n")
    (folder / "unused.py").write_text("raise OSError('nobody imports this')\n")
    study = folder / "hilly.py"
    study.write_text(STUDY.format(go=go))
    return study


@pytest.fixture
def hosts(folder: pathlib.Path) -> Iterator[RayHosts]:
    try:
        network = Network(3)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"`ip netns` cannot be used here: {error}")
    made = RayHosts(network, folder / "own", folder / "ray")
    yield made
    made.close()
    network.close()


@pytest.mark.ray
def test_a_search_on_hosts_that_have_gpus_and_come_and_go(
    hosts: RayHosts, folder: pathlib.Path
) -> None:
    runs, go = folder / "runs", folder / "go"
    study = write_study(folder / "own", str(go))
    hosts.join(0, cpus=2, gpus=2)
    hosts.join(1, cpus=1, gpus=1)
    words = [sys.executable, str(ROOT / "launch.py"), "run", str(study), "--engine", "ray"]
    words += ["--workers", "3", "--gpus-per-worker", "1", "--trials", "14", "--seed", "1"]
    words += ["--id", "wide", "--runs", str(runs), "--lease", "5"]

    # What Ray does not take is refused by name, and nothing is left of the run.
    (folder / "own" / "bumps" / "huge.bin").write_bytes(os.urandom(3_000_000))
    narrow = hosts.start(0, words, RAY_ADDRESS=hosts.address, RAY_max_grpc_message_size="2000000")
    refusal = narrow.communicate(timeout=PATIENCE_S)[0].decode()
    assert narrow.returncode == 2 and "own/bumps to the Ray cluster: Package size" in refusal, (
        refusal
    )
    assert not list(runs.glob("*"))
    (folder / "own" / "bumps" / "huge.bin").unlink()

    search = hosts.start(0, words, RAY_ADDRESS=hosts.address)
    run = HeldRun(runs, "wide", go)

    def used() -> set[tuple[str, str]]:
        """Where trials run now: the host's process and the GPU."""
        assert search.poll() is None, search.communicate()[0].decode()
        status = run.status() or {"workers": []}
        at_work = [w for w in status["workers"] if w["trial_id"] and w["pid"]]
        return {(w["id"], w["device"]) for w in at_work}

    try:
        found = wait_until(lambda: len(now := used()) == 3 and now, "three workers at work")
        assert sorted(device for _, device in found) == ["gpu:0", "gpu:0", "gpu:1"]

        # More than there is room for is no secret; a host that joins makes room.
        def scale(number: int) -> str:
            words = [sys.executable, str(ROOT / "launch.py"), "scale", "wide"]
            inside = hosts.start(0, [*words, "--workers", str(number), "--runs", str(runs)])
            out = inside.communicate(timeout=PATIENCE_S)[0].decode()
            assert inside.returncode == 0, out
            return out

        assert "4 workers wanted, 3 before; there is room for 3" in scale(4)
        hosts.join(2, cpus=1, gpus=1)
        wait_until(lambda: len(used()) == 4, "the fourth worker at work")

        hosts.lose(1)
        wait_until(lambda: len(used()) == 3, "the lost host's worker is missed")
        run.release()
        out = search.communicate(timeout=PATIENCE_S)[0].decode()
    finally:
        search.kill()
        search.communicate()
    assert search.returncode == 0, out
    rows: list[dict[str, Any]] = run.rows()
    done = [row for row in rows if row["state"] == "COMPLETED"]
    assert len({row["trial_id"] for row in done}) == len(done) == 14
    lost = [row for row in rows if row["state"] != "COMPLETED"]
    assert [row["failure"] for row in lost] == ["PREEMPTED"], lost
    for row in done:
        # The trial's process saw the GPU that its record names, and no other.
        assert {f"gpu:{step['metrics']['gpu']:.0f}" for step in row["history"]} == {row["device"]}
    wait_for_end(runs)


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("127.0.0.1:1", 3, "the Ray cluster at 127.0.0.1:1 does not answer (["),
        ("nobody.invalid:6379", 3, "nobody.invalid:6379 does not answer"),
        ("head", 2, "RAY_ADDRESS=head: give HOST:PORT"),
        ("ray://127.0.0.1:10001", 2, "give HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_before_a_study_is_read(
    folder: pathlib.Path, address: str, status: int, said: str
) -> None:
    study = folder / "broken.py"
    study.write_text("raise OSError('read')")
    arguments = ("run", str(study), "--engine", "ray", "--runs", str(folder / "runs"))
    done = launch(*arguments, env={"RAY_ADDRESS": address})
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stdout + done.stderr
    assert said in done.stderr and not (folder / "runs").exists()


def test_what_a_study_imports_of_its_own_is_found(folder: pathlib.Path) -> None:
    study = write_study(folder)
    names = [path.name for path in own_modules(study, [ROOT])]
    assert names == ["axes.py", "bumps", "shapes.py"]


def test_a_study_of_the_project_brings_what_it_shares_with_others() -> None:
    found = own_modules(ROOT / "studies" / "cnn_dropout.py", [ROOT])
    assert [path.name for path in found] == ["hpo", "studies"]


def test_what_is_installed_goes_before_a_folder_of_the_same_name(folder: pathlib.Path) -> None:
    (folder / "numpy").mkdir()
    (folder / "numpy" / "notes.py").touch()
    (folder / "mine").mkdir()
    (folder / "mine" / "part.py").write_text("import json, numpy\n")
    (folder / "json.py").write_text("import mine\n")
    study = folder / "study.py"
    study.write_text("import mine.part\nimport numpy\n")
    assert own_modules(study, [ROOT]) == [folder / "mine"]
