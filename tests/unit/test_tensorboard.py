"""The projection of a ledger into TensorBoard's files, read back by TensorBoard itself."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from hpo.errors import PlaceError
from hpo.study import Form, Study
from hpo.tensorboard.columns import MAX_METRICS
from hpo.tensorboard.server import serve
from hpo.tensorboard.writer import TensorBoardWriter, project
from hpo.trial import Failure, Params, Report, TrialRecord, TrialState
from tests.support.hparams_client import Page, metrics_of
from tests.support.tensorboard_ledger import (
    BEGAN,
    COMMON,
    OBJECTIVE,
    WITH_SGD,
    a_record,
    a_study,
    events_of,
)

WITH_ADAM: Params = {"optimizer": "adam", **COMMON, "patience": 2.5, "depth": 7, "penalty": 0.1}


def a_report(step: int, objective: float, **metrics: float) -> Report:
    return Report(step, {OBJECTIVE: objective, "loss": 1.0 / step, **metrics})


class Ledger:
    """What a ledger would hold, with every event passed on to a writer of TensorBoard's."""

    def __init__(self, folder: pathlib.Path, study: Study | None = None) -> None:
        self.folder = folder
        self.study = study or a_study()
        self.records: dict[tuple[str, int], TrialRecord] = {}
        self.writer = TensorBoardWriter(folder, self.study)

    def start(self, record: TrialRecord) -> None:
        self._keep(record)
        self.writer.start(record)

    def report(self, record: TrialRecord, *reports: Report) -> None:
        for report in reports:
            self.writer.report(self._bare(record), report)
            now = self.records[record.trial_id, record.attempt]
            steps = {r.step: r for r in (*now.history, report)}
            self._keep(
                dataclasses.replace(now, history=tuple(steps[step] for step in sorted(steps)))
            )

    def end(self, record: TrialRecord, state: TrialState, failure: Failure | None = None) -> None:
        now = self.records.get((record.trial_id, record.attempt), record)
        assert record.started_at is not None
        ended = dataclasses.replace(
            now, state=state, failure=failure, ended_at=record.started_at + 5
        )
        self._keep(ended)
        self.writer.end(dataclasses.replace(ended, history=()))

    def crash(self) -> None:
        """The chief dies while it writes a running attempt's file; another takes over."""
        for record in self.records.values():
            if record.state is TrialState.RUNNING:
                (path,) = events_of(self.folder / f"trial-{record.trial_id}")
                with path.open("ab") as file:
                    file.write(b"half a record")
        self.writer = TensorBoardWriter(self.folder, self.study)
        self.writer.restore(self.records.values())

    def _keep(self, record: TrialRecord) -> None:
        self.records[record.trial_id, record.attempt] = record

    def _bare(self, record: TrialRecord) -> TrialRecord:
        return dataclasses.replace(self.records[record.trial_id, record.attempt], history=())


def write_live(folder: pathlib.Path) -> Ledger:
    """A search with every fate that an attempt can meet, and a crash in the middle."""
    ledger = Ledger(folder)
    completed, broken, lost = a_record(0), a_record(1, WITH_ADAM), a_record(2)
    pruned, running = a_record(3, WITH_ADAM), a_record(4)
    ledger.start(completed)
    ledger.report(completed, a_report(1, 0.5), a_report(2, 0.9, val_loss=0.1), a_report(3, 0.7))
    ledger.end(completed, TrialState.COMPLETED)
    ledger.start(broken)
    ledger.report(broken, a_report(1, 0.3), a_report(2, math.nan, val_loss=math.inf))
    ledger.start(lost)
    ledger.report(lost, a_report(1, 0.8))
    ledger.start(running)
    ledger.report(running, a_report(1, 0.4), a_report(2, 0.2))

    ledger.crash()
    ledger.end(broken, TrialState.FAILED, Failure.NAN)
    ledger.end(lost, TrialState.FAILED, Failure.PREEMPTED)
    again = a_record(2, attempt=2)
    ledger.start(again)
    ledger.report(again, a_report(1, 0.6), a_report(2, 0.65))
    ledger.end(again, TrialState.COMPLETED)
    ledger.start(pruned)
    # The ledger replaces a step that is reported again: the best so far may be worse then.
    ledger.report(pruned, a_report(1, 0.1), a_report(2, 0.99), a_report(3, 0.2))
    ledger.report(pruned, a_report(2, 0.15))
    ledger.end(pruned, TrialState.PRUNED)
    ledger.report(running, a_report(3, 0.35))
    ledger.end(a_record(5), TrialState.FAILED, Failure.CODE)
    waiting = dataclasses.replace(a_record(6), state=TrialState.WAITING, started_at=None)
    ledger.records["0006", 1] = waiting
    return ledger


@dataclasses.dataclass
class Shown:
    """One search as it was written live and as it was rebuilt, on one page."""

    ledger: Ledger
    experiment: Any
    live: dict[str, Any]
    rebuilt: dict[str, Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("runs")
    ledger = write_live(folder / "live")
    project(folder / "rebuilt", ledger.study, ledger.records.values())
    with serve({"one": folder / "live", "two": folder / "rebuilt"}) as server:
        page = Page(server)
        rows = page.rows(14)
        yield Shown(ledger, page.experiment(), _of_run(rows, "one"), _of_run(rows, "two"))


def _of_run(rows: dict[str, Any], run: str) -> dict[str, Any]:
    """The rows of one run without its name and without when their metrics were written."""
    text = json.dumps({name: row for name, row in rows.items() if name.startswith(f"{run}/")})
    found: dict[str, Any] = json.loads(text.replace(f'"{run}/', '"'))
    for row in found.values():
        for part in (row, *row["sessions"]):
            for metric in part["metricValues"]:
                assert metric.pop("wallTimeSecs") > BEGAN
    return found


def test_every_attempt_is_a_row_of_its_own(shown: Shown) -> None:
    numbers = ["0000", "0001", "0002", "0002-attempt-2", "0003", "0004", "0005"]
    assert sorted(shown.live) == [f"trial-{number}" for number in numbers]
    assert all(len(row["sessions"]) == 1 for row in shown.live.values())


def test_rebuilt_run_reads_like_the_live_one(shown: Shown) -> None:
    assert shown.rebuilt == shown.live


def test_status_and_times(shown: Shown) -> None:
    sessions = {name: row["sessions"][0] for name, row in shown.live.items()}
    assert {name: session["status"] for name, session in sessions.items()} == {
        "trial-0000": "STATUS_SUCCESS",
        "trial-0001": "STATUS_FAILURE",
        "trial-0002": "STATUS_FAILURE",
        "trial-0002-attempt-2": "STATUS_SUCCESS",
        "trial-0003": "STATUS_SUCCESS",
        "trial-0004": "STATUS_UNKNOWN",
        "trial-0005": "STATUS_FAILURE",
    }
    for record in shown.ledger.records.values():
        if record.state is not TrialState.WAITING:
            name = f"trial-{record.trial_id}" + ("-attempt-2" if record.attempt == 2 else "")
            assert sessions[name]["startTimeSecs"] == record.started_at
            assert sessions[name]["endTimeSecs"] == (record.ended_at or 0)


def test_columns_have_their_declared_types_and_domains(shown: Shown) -> None:
    def interval(low: float, high: float) -> Any:
        return pytest.approx({"minValue": low, "maxValue": high})

    columns = {
        info["name"]: (info["type"], info.get("domainInterval", info.get("domainDiscrete")))
        for info in shown.experiment["hparamInfos"]
    }
    assert columns == {
        "optimizer": ("DATA_TYPE_STRING", ["sgd", "adam"]),
        "lr": ("DATA_TYPE_FLOAT64", interval(1e-4, 1e-1)),
        "log10(lr)": ("DATA_TYPE_FLOAT64", interval(-4, -1)),
        "units": ("DATA_TYPE_FLOAT64", interval(1, 100)),
        "log10(units)": ("DATA_TYPE_FLOAT64", interval(0, 2)),
        "width": ("DATA_TYPE_FLOAT64", interval(8, 64)),
        "augment": ("DATA_TYPE_BOOL", [False, True]),
        "patience": ("DATA_TYPE_FLOAT64", [1, 2.5]),
        "momentum": ("DATA_TYPE_FLOAT64", interval(0, 0.9)),
        "depth": ("DATA_TYPE_FLOAT64", interval(1, 8)),
        "penalty": ("DATA_TYPE_STRING", ["None", "l2", "0.1", "0.2"]),
    }


def test_columns_of_metrics_are_few_and_begin_with_the_value(shown: Shown) -> None:
    tags = [info["name"]["tag"] for info in shown.experiment["metricInfos"]]
    assert tags == [f"best_{OBJECTIVE}", OBJECTIVE, "val_loss", "loss", "accuracy"]
    assert len(tags) == MAX_METRICS


def test_logarithms_never_displace_a_hyperparameter(shown: Shown) -> None:
    last = [info["name"] for info in shown.experiment["hparamInfos"]][-2:]
    assert last == ["log10(lr)", "log10(units)"]


def test_cells_are_typed_and_inactive_ones_blank(shown: Shown) -> None:
    logs = {"log10(lr)": pytest.approx(-2), "log10(units)": pytest.approx(math.log10(50))}
    with_sgd = {name: value for name, value in WITH_SGD.items() if name != "classes"}
    assert shown.live["trial-0000"]["hparams"] == {**with_sgd, **logs}
    with_adam = {name: value for name, value in WITH_ADAM.items() if name != "classes"}
    cells = shown.live["trial-0003"]["hparams"]
    assert cells == {**with_adam, "penalty": "0.1", **logs}
    assert "momentum" not in cells
    assert cells["augment"] is True


def test_last_value_is_the_best(shown: Shown) -> None:
    assert metrics_of(shown.live["trial-0000"]) == {
        OBJECTIVE: (3, 0.7),
        f"best_{OBJECTIVE}": (3, 0.9),
        "loss": (3, 1 / 3),
        "val_loss": (2, 0.1),
    }
    best = {
        name: metrics_of(row)[f"best_{OBJECTIVE}"]
        for name, row in shown.live.items()
        if row["metricValues"]
    }
    assert best == {
        "trial-0000": (3, 0.9),
        "trial-0001": (2, 0.3),
        "trial-0002": (1, 0.8),
        "trial-0002-attempt-2": (2, 0.65),
        "trial-0003": (3, 0.2),
        "trial-0004": (3, 0.4),
    }


def test_nan_leaves_a_row_in_numbers(shown: Shown) -> None:
    metrics = metrics_of(shown.live["trial-0001"])
    assert metrics == {OBJECTIVE: (1, 0.3), f"best_{OBJECTIVE}": (2, 0.3), "loss": (2, 0.5)}


def test_watched_attempt_survives_a_restart_of_the_chief(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path, a_study(objective="val_loss", direction="min"))
    record = a_record(0)
    ledger.start(record)
    with serve({"run": tmp_path}) as server:
        page = Page(server)
        (row,) = page.rows(1).values()
        assert (row["name"], row["metricValues"]) == ("trial-0000", [])
        ledger.report(record, a_report(1, 0.5, val_loss=3.0), a_report(2, 0.5, val_loss=2.0))
        ledger.report(record, a_report(3, 0.5, val_loss=4.0))
        page.rows(1, lambda rows: rows["trial-0000"]["metricValues"])
        ledger.crash()
        ledger.report(record, a_report(4, 0.5, val_loss=2.5))
        ledger.end(record, TrialState.COMPLETED)
        page.rows(1, lambda rows: status_of(rows["trial-0000"]) == "STATUS_SUCCESS")
        assert page.series("trial-0000", "val_loss") == [(1, 3), (2, 2), (3, 4), (4, 2.5)]
        assert page.series("trial-0000", "best_val_loss") == [(1, 3), (2, 2), (3, 2), (4, 2)]


def status_of(row: Any) -> str:
    return str(row["sessions"][0]["status"])


def test_restore_leaves_ended_attempts_alone_and_drops_strangers(tmp_path: pathlib.Path) -> None:
    ledger = write_live(tmp_path)
    stranger = tmp_path / "trial-0099"
    ledger.writer.start(a_record(99))
    assert stranger.is_dir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*tfevents*")}
    ledger.crash()
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*tfevents*")}
    gone = {path.parent.name for path in before if after.get(path) != before[path]}
    assert gone == {"trial-0004", "trial-0099"}
    assert not stranger.exists()
    assert len(events_of(tmp_path)) == 1
    assert all(len(events_of(path)) == 1 for path in tmp_path.iterdir() if path.is_dir())


def test_ended_attempt_is_closed_for_good(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path)
    record = a_record(0)
    ledger.start(record)
    ledger.report(record, a_report(1, 0.5))
    ledger.end(record, TrialState.COMPLETED)
    (path,) = events_of(tmp_path / "trial-0000")
    content = path.read_bytes()
    ledger.report(record, a_report(2, 0.6))
    ledger.end(record, TrialState.FAILED)
    assert path.read_bytes() == content


def test_attempt_that_the_disk_refused_is_written_whole_later(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path / "refused")
    record = a_record(0)
    in_the_way = tmp_path / "refused" / "trial-0000"
    in_the_way.touch()
    with pytest.raises(PlaceError, match="trial-0000"):
        ledger.start(record)
    with pytest.raises(PlaceError, match="trial-0000"):
        ledger.writer.report(record, a_report(1, 0.5))
    in_the_way.unlink()
    ledger.report(record, a_report(2, 0.6))
    whole = Ledger(tmp_path / "whole")
    whole.start(record)
    whole.report(record, a_report(1, 0.5), a_report(2, 0.6))
    assert summaries(tmp_path / "refused") == summaries(tmp_path / "whole")


def summaries(folder: pathlib.Path) -> list[Any]:
    """What lies in an attempt's file, without times. A record is framed by length and sums."""
    from tensorboard.compat.proto import event_pb2

    (path,) = events_of(folder / "trial-0000")
    content, events = path.read_bytes(), []
    while content:
        end = 12 + int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12:end]))
        content = content[end + 4 :]
    return [
        (event.step, value.tag, value.simple_value, value.metadata.plugin_data.content)
        for event in events
        for value in event.summary.value
    ]


def test_function_study_declares_its_objective_alone(tmp_path: pathlib.Path) -> None:
    study = a_study(form=Form.FUNCTION, objective="regret", direction="min")
    ledger = Ledger(tmp_path, study)
    record = a_record(0)
    ledger.start(record)
    ledger.report(record, Report(1, {"regret": 2.0}), Report(2, {"regret": 3.0}))
    with serve({"run": tmp_path}) as server:
        page = Page(server)
        rows = page.rows(1)
        tags = [info["name"]["tag"] for info in page.experiment()["metricInfos"]]
        assert tags == ["best_regret", "regret"]
        assert metrics_of(rows["trial-0000"]) == {"regret": (2, 3), "best_regret": (2, 2)}


def test_a_thousand_trials_show_their_first_rows_whole(tmp_path: pathlib.Path) -> None:
    steps = [a_report(step, 0.5 + step / 100, val_loss=1.0) for step in range(1, 21)]
    records = [
        dataclasses.replace(
            a_record(trial, (WITH_SGD, WITH_ADAM)[trial % 2]),
            state=TrialState.COMPLETED,
            history=tuple(steps),
            ended_at=BEGAN + 100 * trial + 50,
        )
        for trial in range(1000)
    ]
    project(tmp_path, a_study(), records)
    with serve({"run": tmp_path}) as server:
        page = Page(server)
        page.rows(1000, lambda rows: all(row["metricValues"] for row in rows.values()))
        rows = page.first_rows(100)
        assert len(rows) == 100
        assert all(len(row["metricValues"]) == 4 for row in rows)
