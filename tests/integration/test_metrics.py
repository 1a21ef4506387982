"""A chief's figures for Prometheus, as that would read them."""

from __future__ import annotations

import pathlib
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from hpo import env
from hpo.trial import Report
from tests.support.cli_runs import PATIENCE_S, launch, wait_until
from tests.support.manual_chief import HandMade, free_port


def figures(port: int) -> dict[tuple[str, str], float]:
    """What is served, by name and state."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, sample.labels.get("state", "")): sample.value
            for family in families
            for sample in family.samples
            if sample.labels["run"] == "measured"
        }


def test_a_chief_s_figures(tmp_path: pathlib.Path) -> None:
    port = free_port()
    own = {env.METRICS_PORT: str(port)}
    chief = HandMade(tmp_path, "measured", free_port(), trials=2, own=own)
    try:
        client = chief.joined()
        granted = wait_until(lambda: client.create_trial("w"), "a trial")
        seen = figures(port)
        assert seen["tunefleet_trials", "running"] == 1
        assert seen["tunefleet_trials_wanted", ""] == 2
        assert seen["tunefleet_workers", ""] == seen["tunefleet_utilization", ""] == 1
        assert seen["tunefleet_best_value", ""] != seen["tunefleet_best_value", ""]
        client.report(granted, Report(1, {"loss": 0.25}))
        client.end(granted, completed=True)
        wait_until(lambda: figures(port)["tunefleet_trials", "completed"] == 1, "the end")
        assert figures(port)["tunefleet_best_value", ""] == 0.25
    finally:
        chief.process.kill()
        chief.process.communicate()


def test_a_port_that_is_none_is_refused(tmp_path: pathlib.Path) -> None:
    words = ["run", "digits", "--runs", str(tmp_path), "--trials", "1"]
    done = launch(*words, env={env.METRICS_PORT: "none"})
    assert done.returncode == 2 and "TUNEFLEET_METRICS_PORT='none': give a port" in done.stderr
    assert not list(tmp_path.iterdir())
