"""`benchmark` and `report` as processes: matrices, replays, what is refused, what they write."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.support import surrogate_tables as tables
from tests.support.cli_runs import ROOT, assert_nothing_left, environment, launch, read, wait_until


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tables") / "bowl"
    tables.made_up(40, noise=0.02).write(folder)
    return folder


def replay(table: pathlib.Path, runs: pathlib.Path, *more: str) -> Any:
    words = ["--samplers", "random,qmc", "--seeds", "4", "--workers", "2,16", "--id", "b"]
    return launch("benchmark", "--replay", str(table), *words, "--runs", str(runs), *more)


def cells(runs: pathlib.Path, name: str = "b") -> dict[str, Any]:
    """What is kept of each search."""
    found = sorted((runs / name / "cells").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in found}


def test_a_replayed_benchmark_says_what_it_found(
    table: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = replay(table, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("benchmark b: 16 searches\n")
    assert len(re.findall(r"^\d+/16 .*: DONE 20 trials", done.stdout, re.MULTILINE)) == 16
    assert "keras-tuner / qmc" in done.stdout
    report = tmp_path / "b" / "report"
    data = json.loads((report / "report.json").read_text())
    assert [task["workers"] for task in data["tasks"]] == [2, 16]
    for task in data["tasks"]:
        assert {m["name"] for m in task["methods"]} == {
            "keras-tuner / random",
            "keras-tuner / qmc",
        }
        for method in task["methods"]:
            assert method["regret"].keys() == {"25", "50", "100"}
            assert method["regret"]["100"]["low"] <= method["regret"]["100"]["value"]
            assert method["regret"]["25"]["value"] >= method["regret"]["100"]["value"]
        assert len(task["curves"]["trials"]["at"]) > 50
    # More workers are sooner done, and wait more.
    few, many = (
        next(m for m in task["methods"] if "random" in m["name"]) for task in data["tasks"]
    )
    assert many["makespan_s"]["value"] < few["makespan_s"]["value"] / 4
    assert data["selection_bias"]["value"] > 0
    page = (report / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "it needs no other file"
    markdown = (report / "report.md").read_text()
    pictures = re.findall(r"\]\((\S+\.png)\)", markdown)
    assert len(pictures) == len(set(pictures)) >= 12
    assert page.count("<figure>") == len(pictures)
    for name in pictures:
        assert (report / name).read_bytes().startswith(b"\x89PNG")


def test_a_killed_benchmark_goes_on_with_the_next_search(
    table: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ["benchmark", "--replay", str(table), "--samplers", "random,tpe", "--seeds", "8"]
    words += ["--id", "b", "--runs", str(tmp_path), "--suggest-s", "0.1", "--call-s", "0"]
    child = subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=ROOT,
        env=environment(words),
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: len(cells(tmp_path)) >= 3, "some searches are done")
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "b" / "cells").glob("*.json")}
    assert 3 <= len(before) < 16
    again = launch(*words)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    whole = cells(tmp_path)
    assert len(whole) == 16
    # Nothing in it depends on the kill: what is stated and not measured comes out the same.
    anew = launch(*("c" if word == "b" else word for word in words))
    assert anew.returncode == 0, anew.stderr
    assert {n: c["trace"] for n, c in cells(tmp_path, "c").items()} == {
        n: c["trace"] for n, c in whole.items()
    }
    changed = tables.made_up(40, noise=0.03)
    shutil.move(table, tmp_path / "kept")
    changed.write(table)
    for words_now in (words, ["report", "b", "--runs", str(tmp_path)]):
        refused = launch(*words_now)
        assert refused.returncode == 2
        assert "other table_digest" in refused.stderr or "it has changed since" in refused.stderr
    shutil.rmtree(table)
    shutil.move(tmp_path / "kept", table)
    other = launch(*words, "--trials", "3")
    assert other.returncode == 2 and "begun by another request (other budget)" in other.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engines", "ray", "--samplers", "random,optuna:grid"], "only engine optuna has it"),
        (["--samplers", "rand"], "did you mean 'random'"),
        (["--pruners", "asa", "--skip-unsupported"], "did you mean 'asha'"),
        (["--node-seconds", "5"], "less than one trial: the table's shortest takes 40 s"),
        (["--preempt", "expo:3"], "did you mean 'exp'"),
        (["--trials", "0"], "give at least 1"),
        (["--workers", "2,x"], "'x' is not a whole number"),
        (["--samplers", "random,,tpe"], "has an empty place"),
        (["digits"], "benchmark what? a STUDY, or --replay TABLE"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_runs(
    table: pathlib.Path, tmp_path: pathlib.Path, words: list[str], message: str
) -> None:
    done = launch("benchmark", "--replay", str(table), *words, "--runs", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_rest_goes_on_where_that_is_asked(table: pathlib.Path, tmp_path: pathlib.Path) -> None:
    words = ["--engines", "ray,optuna", "--samplers", "random,optuna:random"]
    words += ["--skip-unsupported", "--seeds", "1", "--id", "b", "--runs", str(tmp_path), "--json"]
    done = launch("benchmark", "--replay", str(table), *words)
    assert done.returncode == 0, done.stderr
    assert "not supported: ray / optuna:random + none: engine ray has no sampler" in done.stderr
    data = json.loads(done.stdout.splitlines()[-1])
    assert [pair["engine"] for pair in data["unsupported"]] == ["ray"]
    assert {m["name"] for m in data["tasks"][0]["methods"]} == {
        "optuna / random",
        "optuna / optuna:random",
        "ray / random",
    }


def test_a_table_that_is_not_whole_is_refused(tmp_path: pathlib.Path) -> None:
    broken = tables.made_up(9)
    broken.metrics[4, 1, 2] = np.nan
    broken.write(tmp_path / "t")
    done = launch("benchmark", "--replay", str(tmp_path / "t"), "--runs", str(tmp_path / "runs"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "row 4: seed 1, step 3 is missing" in done.stderr


def test_a_matrix_is_made_of_runs_that_every_verb_opens(tmp_path: pathlib.Path) -> None:
    """And a search that fails is told of, while the others go on."""
    words = ["benchmark", "tests/support/studies/curves.py", "--samplers", "random,grid,tpe"]
    words += ["--seeds", "2", "--trials", "4", "--id", "m", "--runs", str(tmp_path)]
    refused = launch(*words)
    # A float without a step has no grid.
    assert refused.returncode == 2 and "not supported: keras-tuner / grid + none" in refused.stderr
    done = launch(*words, "--top", "2", "--fresh-seeds", "2", "--skip-unsupported", timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "with fresh seeds: " in done.stdout
    kept = cells(tmp_path, "m")
    assert len(kept) == 4
    started = {}
    for cell in kept.values():
        status = read(tmp_path, cell["run"])
        assert (status["state"], status["trials"]["completed"]) == ("DONE", 4)
        assert status["sampler"] == cell["cell"]["sampler"]
        trials = read(tmp_path, cell["run"], "trials")
        assert {t["seed"] for t in trials}.isdisjoint(started)
        first = started.setdefault(cell["cell"]["seed"], trials[0]["params"])
        assert trials[0]["params"] == first, "searches of a seed begin alike"
        values = [end["value"] for end in cell["trace"]["ends"]]
        assert sorted(values) == sorted(t["value"] for t in trials)
        assert 0 < cell["trace"]["busy_s"] <= cell["trace"]["present_s"]
    data = json.loads((tmp_path / "m" / "report" / "report.json").read_text())
    winner = data["winner"]["candidates"]
    assert len(winner) == 2 and all(len(c["values"]) == 2 for c in winner)
    assert read(tmp_path, "m-f00")["trials"]["completed"] == 2
    assert_nothing_left(tmp_path)
    # Again: everything is there, and nothing is done twice.
    again = launch(*words, "--top", "2", "--fresh-seeds", "2", "--skip-unsupported")
    assert again.returncode == 0 and "1/4" not in again.stdout


HOPELESS = """
OBJECTIVE = "loss"
def evaluate(hp, report):
    x = hp.Float("x", 0.0, 1.0)
    report(1, {"loss": x})
    raise ValueError(f"never {x}")
"""


def test_a_search_that_fails_is_told_of(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "hopeless.py"
    study.write_text(HOPELESS)
    words = ["benchmark", str(study), "--samplers", "random", "--seeds", "1", "--trials", "2"]
    done = launch(*words, "--id", "m", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 1, done.stderr
    assert "FAILED: no trial came to a value" in done.stdout
    ((_, cell),) = cells(tmp_path / "runs", "m").items()
    assert cell["state"] == "FAILED"
    assert read(tmp_path / "runs", cell["run"])["trials"]["failed"] == 2
    asked = launch("report", "m", "--runs", str(tmp_path / "runs"))
    assert asked.returncode == 2 and "no search of m has come to a value" in asked.stderr


def test_a_report_of_runs_is_a_page(tmp_path: pathlib.Path) -> None:
    for run_id, sampler in (("one", "random"), ("two", "qmc")):
        words = ["run", "tests/support/studies/curves.py", "--sampler", sampler, "--trials", "12"]
        assert launch(*words, "--id", run_id, "--runs", str(tmp_path)).returncode == 0
    out = tmp_path / "report"
    done = launch("report", "one", "two", "--out", str(out), "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(str(path) for path in out.iterdir())
    assert {path.name for path in out.iterdir()} == {
        *(f"report.{kind}" for kind in ("html", "md", "json")),
        *(f"{name}.png" for name in ("anytime", "utilisation", "importance")),
        "parallel-coordinates.png",
    }
    data = json.loads((out / "report.json").read_text())
    best = read(tmp_path, "one")["best"]
    values = [end["value"] for end in data["runs"][0]["ends"]]
    assert min(values) == best["value"] and len(values) == 12
    assert data["importance"] == {"x": 1.0}
    again = launch("report", "one", "--json", "--runs", str(tmp_path))
    assert json.loads(again.stdout)["runs"][0]["id"] == "one"
    (out / "mine.txt").write_text("kept")
    refused = launch("report", "one", "--out", str(out), "--runs", str(tmp_path))
    assert refused.returncode == 3 and "mine.txt, which is no report's" in refused.stderr
    assert (out / "mine.txt").exists()
    unknown = launch("report", "ones", "--runs", str(tmp_path))
    assert unknown.returncode == 2 and "did you mean 'one'" in unknown.stderr


def test_the_published_systems_are_run_with_their_samplers(tmp_path: pathlib.Path) -> None:
    words = ["benchmark", "--published", "--samplers", "kt-grid", "--trials", "1", "--epochs", "1"]
    words += ["--train-examples", "64", "--workers", "1", "--runs", str(tmp_path), "--json"]
    done = launch(*words, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = json.loads(done.stdout.splitlines()[-1])
    assert (row["study"], row["sampler"], row["trials"]) == ("cnn-dense", "kt-grid", 1)
    assert row["published"] == {"val_accuracy": None, "test_accuracy": 0.8934, "test_loss": 0.30}
    assert row["measured"]["test_accuracy"] > 0
    assert (row["epochs"], row["train_examples"]) == (1, 64)
    assert read(tmp_path, row["run"])["state"] == "DONE"
    assert os.listdir(tmp_path / "published")
