"""Which processors and GPUs each worker gets; no GPU is needed for that."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.devices import gpus_here, share
from hpo.errors import UsageError
from tests.support.cli_runs import STUDIES, launch


@given(workers=st.integers(1, 20), cpus=st.integers(1, 16), gpus=st.integers(0, 8))
def test_each_worker_has_a_core_and_gpus_are_spread(workers: int, cpus: int, gpus: int) -> None:
    names = [str(number) for number in range(gpus)]
    shares = share(workers, None, range(cpus), names)
    assert len(shares) == workers
    assert all(own.cpus for own in shares)
    if workers <= cpus:
        used = [cpu for own in shares for cpu in own.cpus]
        assert len(used) == len(set(used))
    if gpus:
        load = [sum(name in own.gpus for own in shares) for name in names]
        assert all(len(own.gpus) == 1 for own in shares)
        assert max(load) - min(load) <= 1
    else:
        assert all(own.to_env()["CUDA_VISIBLE_DEVICES"] == "-1" for own in shares)


def test_several_gpus_for_each_worker_never_overlap() -> None:
    shares = share(2, 2, range(8), ["4", "5", "6", "7"])
    assert [own.gpus for own in shares] == [("4", "5"), ("6", "7")]
    assert shares[1].name == "gpu:6,gpu:7"
    assert shares[1].to_env()["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert shares[0].to_env()["OMP_NUM_THREADS"] == "4"


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 6 GPUs and this host has 4"):
        share(3, 2, range(8), ["0", "1", "2", "3"])


@pytest.mark.parametrize(
    ("named", "found"), [("", []), ("-1", []), ("0", ["0"]), ("3,5", ["3", "5"])]
)
def test_only_the_gpus_that_are_visible_count(named: str, found: list[str]) -> None:
    assert gpus_here({"CUDA_VISIBLE_DEVICES": named}) == found


def test_a_trial_sees_its_workers_share_and_no_more(tmp_path: pathlib.Path) -> None:
    arguments = ("--trials", "6", "--workers", "2", "--id", "share", "--runs", str(tmp_path))
    study = str(STUDIES / "surroundings.py")
    done = launch("run", study, *arguments, env={"CUDA_VISIBLE_DEVICES": "3,5"})
    assert done.returncode == 0, done.stderr
    printed = launch("trials", "share", "--json", "--runs", str(tmp_path)).stdout
    rows = [json.loads(line) for line in printed.splitlines()]
    seen = {(row["device"], row["history"][0]["metrics"]["gpu"]) for row in rows}
    assert seen <= {("gpu:3", 3.0), ("gpu:5", 5.0)}
    for row in rows:
        metrics = row["history"][0]["metrics"]
        assert metrics["threads"] == metrics["cpus"]
        assert metrics["parent_is_leader"] == 1.0
