"""Asks a TensorBoard over HTTP what its HParams page asks."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from hpo.tensorboard.server import TensorBoardServer
from tests.support.cli_runs import PATIENCE_S, wait_until

STATUSES = ("STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING")


class Page:
    """The HParams page of one TensorBoard, by its server or its address."""

    def __init__(self, server: TensorBoardServer | str) -> None:
        url = server if isinstance(server, str) else server.url
        self.base = url.removesuffix("#hparams")

    def experiment(self) -> Any:
        return self._json("data/plugin/hparams/experiment", {"hparamsLimit": 1000})

    def first_rows(self, count: int) -> list[Any]:
        """The first ``count`` rows, asked for as the page does when it is opened."""
        experiment = self.experiment()
        columns = [{"hparam": info["name"]} for info in experiment.get("hparamInfos", [])]
        columns += [{"metric": info["name"]} for info in experiment.get("metricInfos", [])]
        body = {"allowedStatuses": STATUSES, "colParams": columns, "sliceSize": count}
        answer = self._json("data/plugin/hparams/session_groups", body)
        return list(answer.get("sessionGroups", []))

    def rows(self, wanted: int, ready: Callable[[Any], bool] = lambda _: True) -> dict[str, Any]:
        """All rows by name, as soon as there are ``wanted`` of them and they are ``ready``."""

        def look() -> Any:
            rows = {group["name"]: group for group in self.first_rows(1000)}
            return rows if len(rows) == wanted and ready(rows) else None

        found: dict[str, Any] = wait_until(look, f"{wanted} rows that are ready")
        return found

    def series(self, run: str, tag: str) -> list[tuple[int, Any]]:
        query = urllib.parse.urlencode({"run": run, "tag": tag})
        points = self._json(f"data/plugin/scalars/scalars?{query}")
        return [(step, pytest.approx(value, rel=1e-6)) for _, step, value in points]

    def _json(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)


def metrics_of(row: Any) -> dict[str, Any]:
    """A row's metrics by tag, each as (step, value)."""
    return {
        m["name"]["tag"]: (int(m["trainingStep"]), pytest.approx(m["value"], rel=1e-6))
        for m in row["metricValues"]
    }
