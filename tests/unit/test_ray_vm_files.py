"""The files for `ray up` in cluster/vm, by Ray's own measure and by ours."""

from __future__ import annotations

import pathlib
import re
import subprocess
from typing import Any

import pytest
import yaml

from hpo.engines.ray_tune.nodes import missing_nodes, more_alike
from hpo.engines.ray_tune.room import Node
from tests.support.cli_runs import ROOT

FOLDER = ROOT / "cluster" / "vm"
FILES = sorted(FOLDER.glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem in ("aws", "gcp")]


def read(path: pathlib.Path) -> dict[str, Any]:
    """A file as Ray reads it: filled up, and checked by its own rules."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    found: dict[str, Any] = config
    return found


def test_there_is_a_file_for_each_kind_of_place() -> None:
    assert [path.stem for path in FILES] == ["aws", "gcp", "on-premises"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_the_file(path: pathlib.Path) -> None:
    config = read(path)
    assert config["cluster_name"] == "tunefleet" and config["idle_timeout_minutes"] == 10


def test_ray_does_not_take_anything() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(prepare_config({**config, "idle_minutes": 10}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_that_is_sent_is_there(path: pathlib.Path) -> None:
    sent = read(path)["file_mounts"]
    assert sent.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for local in sent.values():
        assert (ROOT / local).exists(), local
    whole = {pathlib.PurePosixPath(there).name for there in sent}
    assert {"hpo", "cluster", "studies", "launch.py"} <= whole
    assert {f"requirements-{name}.txt" for name in ("gpu", "vm", "uv")} <= whole


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_loopback_and_a_named_address_serve(path: pathlib.Path) -> None:
    config = read(path)
    head, *_ = (line for line in config["head_start_ray_commands"] if "--head" in line)
    for option in ("--dashboard-host=127.0.0.1", "--node-ip-address=", "--autoscaling-config="):
        assert option in head
    worker, *_ = (line for line in config["worker_start_ray_commands"] if "--address" in line)
    assert "--node-ip-address=" in worker
    assert any("tensorboard.sh" in line for line in config["head_start_ray_commands"])
    assert "--host 127.0.0.1" in (FOLDER / "tensorboard.sh").read_text()
    assert "RAY_AUTH_MODE=token" in (FOLDER / "environment.sh").read_text()
    # The command that finds the address of a worker, tried with an address of this machine.
    route = re.search(r"\$\((ip -o route get .*)\)\s", worker)
    assert route
    done = subprocess.run(
        ["sh", "-c", route[1]], env={"RAY_HEAD_IP": "127.0.0.1", "PATH": "/usr/sbin:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "127.0.0.1\n"


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_the_head_stays_and_gpus_come_and_go(path: pathlib.Path) -> None:
    config = read(path)
    kinds = config["available_node_types"]
    head, gpu = kinds["head"], kinds["gpu"]
    assert (head["resources"]["CPU"], gpu["resources"]["GPU"]) == (0, 1)
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    spot = yaml.safe_dump(gpu["node_config"]).lower()
    assert "spot" in spot and "spot" not in yaml.safe_dump(head["node_config"]).lower()
    # So many a search may count on, whatever is there already.
    now = [Node(0, 0)]
    assert missing_nodes(config, now) == [Node(8, 1)] * 4
    assert missing_nodes(config, [*now, Node(8, 1)]) == [Node(8, 1)] * 3
    assert missing_nodes({**config, "max_workers": 2}, now) == [Node(8, 1)] * 2


def test_workers_that_an_autoscaler_elsewhere_may_bring_are_like_those_there() -> None:
    now = [Node(0), Node(4, 1), Node(4, 1)]
    assert more_alike(5, now) == [Node(4, 1)] * 3
    assert more_alike(2, now) == more_alike(5, [Node(0)]) == []


def test_nothing_joins_hosts_of_ones_own() -> None:
    assert missing_nodes(read(FOLDER / "on-premises.yaml"), [Node(2), Node(2)]) == []


@pytest.mark.parametrize("script", ["setup.sh", "environment.sh", "tensorboard.sh"])
def test_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n", str(FOLDER / script)], check=True)
