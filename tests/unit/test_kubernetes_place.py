"""What is said where there is no cluster, or not the one that was meant: no cluster needed."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from cluster.cli import main
from tests.support.cli_runs import ROOT, STUDIES
from tests.support.manual_chief import free_port


@pytest.fixture
def kubeconfig(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A configuration for a cluster that does not answer."""
    path = tmp_path / "kubeconfig"
    whole = {
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}},
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "office", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "office",
    }
    path.write_text(yaml.safe_dump(whole))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def said(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    """What was said on the way out, in one line."""
    assert main(arguments) == status
    heard = capsys.readouterr()
    assert heard.out == "" and heard.err.count("\n") == 1
    return heard.err


VERBS = ["status", "trials", "best", "watch", "logs", "stop", "resume", "tensorboard"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["k8s", "rayjob"])
def test_a_cluster_that_does_not_answer(
    kubeconfig: pathlib.Path, capsys: pytest.CaptureFixture[str], verb: str, place: str
) -> None:
    words = said(capsys, 3, verb, f"{place}://tuning/demo")
    assert "no cluster answers at http://127.0.0.1" in words


def test_nothing_is_read_for_a_cluster_that_is_not_configured(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(STUDIES / "slow.py")
    missing = str(tmp_path / "none")
    words = said(capsys, 2, "submit", study, "--on", "k8s", "--kubeconfig", missing)
    assert "no cluster: " in words and "--kubeconfig FILE" in words


def test_another_context_is_named(
    kubeconfig: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = said(capsys, 2, "list", "--on", "k8s", "--context", "offise")
    assert "no context 'offise': did you mean 'office'?" in words


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ("k8s://demo", "bad handle 'k8s://demo': give one such as k8s://namespace/id"),
        ("k9s://tuning/demo", "unknown place 'k9s': did you mean 'k8s'?"),
        ("k8s://tuning/Demo", "bad id 'Demo'"),
    ],
)
def test_a_handle_that_is_none(capsys: pytest.CaptureFixture[str], handle: str, says: str) -> None:
    assert says in said(capsys, 2, "status", handle)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["retry", "k8s://tuning/demo"], "--failed runs those again that failed"),
        (["resume", "k8s://tuning/demo", "--grace=9"], "--grace stays as it was submitted"),
    ],
)
def test_what_does_not_go_with_a_run_elsewhere(
    kubeconfig: pathlib.Path, capsys: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    assert says in said(capsys, 2, *typed)


def test_a_study_of_its_own_is_there_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "studies" / "digits.py")
    assert main(["render", path, "--on", "k8s", "--id", "demo"]) == 0
    assert path not in capsys.readouterr().out


def test_a_dry_run_sends_nothing(
    kubeconfig: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(STUDIES / "slow.py")
    assert main(["submit", study, "--on", "k8s", "--id", "demo", "--dry-run"]) == 0
    found = {m["kind"] for m in yaml.safe_load_all(capsys.readouterr().out)}
    assert "Job" in found and "Secret" not in found


@pytest.mark.parametrize(
    ("place", "engine", "says"),
    [
        ("k8s", "ray", "here each is a pod: take --engine keras-tuner"),
        ("rayjob", "keras-tuner", "does not run on a Ray cluster: take --engine ray"),
        ("ray", "optuna", "does not place its workers on a Ray cluster: take --engine ray"),
    ],
)
def test_a_benchmark_of_an_engine_that_is_not_for_the_place(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], place: str, engine: str, says: str
) -> None:
    words = ["benchmark", str(STUDIES / "slow.py"), "--on", place, "--engines", engine]
    assert main([*words, "--samplers", "random", "--runs", str(tmp_path / "runs")]) == 2
    heard = capsys.readouterr()
    # Before the first search.
    assert heard.out == "" and f"not supported: {engine} / random" in heard.err
    assert says in heard.err and not (tmp_path / "runs").exists()
