"""The verb `tensorboard`, over run folders that a real ledger writer has made."""

from __future__ import annotations

import pathlib
import signal
import urllib.request

import pytest

from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from tests.support.cli_runs import launch
from tests.support.written_runs import (
    Book,
    background,
)


def test_tensorboard_serves_until_ctrl_c(ended: Book) -> None:
    arguments = ("tensorboard", "finished", "--port", "0", "--runs", str(ended.run.folder.parent))
    with background(*arguments) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://") and url.endswith("#hparams")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=20) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        with pytest.raises(OSError, match="refused"):
            opener.open(url, timeout=5)


def test_runs_of_different_spaces_share_no_table(tmp_path: pathlib.Path) -> None:
    runs = tmp_path / "runs"
    other = SearchSpace([Parameter("depth", Kind.INT, low=1, high=3)])
    Book(runs, "one").close()
    Book(runs, "two", space=other).close()
    done = launch("tensorboard", "one", "two", "--runs", str(runs))
    assert (done.returncode, done.stdout) == (2, "")
    assert "runs one and two differ in their space" in done.stderr
