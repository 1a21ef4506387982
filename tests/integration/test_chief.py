"""A real chief, called over gRPC as a worker, a stranger or KerasTuner would call it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from hpo import env
from hpo.errors import RefusedError
from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.fleet.client import ChiefClient, Granted, LostError, Stopped
from hpo.protocol import Verdict
from hpo.status import status_of
from hpo.study import digest_of
from hpo.trial import Failure, Report
from tests.support.cli_runs import PATIENCE_S, QUICK, ROOT, wait_until
from tests.support.manual_chief import STUDY, HandMade, free_port


@pytest.fixture
def chief(tmp_path: pathlib.Path) -> Iterator[HandMade]:
    made = HandMade(tmp_path / "runs", "hand", free_port())
    yield made
    made.process.kill()
    made.process.communicate()


def granted(client: ChiefClient, worker_id: str = "w") -> Granted:
    answer = client.create_trial(worker_id)
    assert isinstance(answer, Granted)
    return answer


def test_a_search_by_hand_ends_when_its_worker_has_understood(chief: HandMade) -> None:
    client = chief.joined()
    for _ in range(2):
        trial = granted(client)
        assert client.report(trial, Report(1, {"loss": 0.5}))
        client.end(trial, completed=True)
    assert client.create_trial("w") == Stopped("done")
    # Another comes and goes, and the chief still waits for the first.
    other = chief.joined("other")
    assert other.create_trial("other") == Stopped("done")
    other.leave()
    assert chief.process.poll() is None
    client.leave()
    out, err = chief.process.communicate(timeout=PATIENCE_S)
    assert chief.process.returncode == 0, err
    # Nobody who had to hear of the end was left behind.
    assert all(row.left_at for row in chief.run.reader().workers())
    assert out.splitlines()[0] == "run hand"


def test_calls_repeated_after_a_lost_answer_change_nothing(chief: HandMade) -> None:
    client = chief.joined()
    trial = granted(client)
    assert granted(client) == trial
    for _ in range(2):
        client.report(trial, Report(1, {"loss": 0.5}))
        client.report(trial, Report(2, {"loss": 0.25}))
    for _ in range(2):
        client.end(trial, completed=True)
    record = chief.run.reader().records()[0]
    assert [report.step for report in record.history] == [1, 2]
    assert (record.state, record.value, record.best_step) == ("COMPLETED", 0.25, 2)


def test_a_failure_is_explained_before_the_end(chief: HandMade) -> None:
    client = chief.joined()
    trial = granted(client)
    client.send_log(trial, b"what it printed")
    client.explain(trial, Failure.OOM, "too large\nfor this device")
    client.end(trial, completed=False)
    record = chief.run.reader().records()[0]
    assert (record.failure, record.error) == (Failure.OOM, "too large\nfor this device")
    assert chief.run.trial_log(trial.trial_id, 1).read_text() == "what it printed"


@pytest.mark.parametrize(
    ("folder", "call", "why"),
    [
        ("weights", "end", "the chief failed at "),
        ("weights", "send_weights", "cannot write "),
        ("checkpoints", "fetch_checkpoint", "the chief failed at "),
    ],
)
def test_a_chief_that_cannot_answer_a_call_says_so_and_leaves(
    chief: HandMade, tmp_path: pathlib.Path, folder: str, call: str, why: str
) -> None:
    client = chief.joined()
    trial = granted(client)
    file = tmp_path / "weights"
    file.write_bytes(b"some")
    calls: dict[str, Callable[[], object]] = {
        "end": lambda: client.end(trial, completed=True),
        "send_weights": lambda: client.send_weights(trial, file),
        "fetch_checkpoint": lambda: client.fetch_checkpoint(trial, file),
    }
    # Somebody tidies up under a search that runs.
    shutil.rmtree(chief.run.folder / folder)
    # The worker asks again and again, as it does of a chief that will be back.
    ending = threading.Thread(target=_until_closed, args=(calls[call],))
    ending.start()
    _, said = chief.process.communicate(timeout=PATIENCE_S)
    client.close()
    ending.join()
    assert chief.process.returncode == 3
    assert said.splitlines()[-1].startswith(f"launch.py: {why}")
    assert folder in said.splitlines()[-1]


def _until_closed(call: Callable[[], object]) -> None:
    # A closed channel takes no call.
    with contextlib.suppress(grpc.RpcError, ValueError):
        call()


def test_a_worker_that_dies_while_it_sends_is_no_failure_of_the_chief(chief: HandMade) -> None:
    client = chief.joined()
    trial = granted(client)
    metadata = [(wire.AUTHORIZATION, wire.bearer(chief.run.token)), (wire.FENCE, str(trial.fence))]
    started, over = threading.Event(), threading.Event()

    def half() -> Iterator[fleet_pb2.WeightsChunk]:
        yield fleet_pb2.WeightsChunk(trial_id=trial.trial_id, data=b"some")
        wait_until(lambda: list(chief.run.weights.iterdir()), "the file's beginning")
        started.set()
        over.wait(PATIENCE_S)

    channel = grpc.insecure_channel(chief.address)
    fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
    under_way = fleet.SendWeights.future(half(), metadata=metadata)
    assert started.wait(PATIENCE_S)
    assert not under_way.done()
    channel.close()
    over.set()
    wait_until(lambda: not list(chief.run.weights.iterdir()), "that its beginning is gone")
    client.report(trial, Report(1, {"loss": 0.5}))
    client.end(trial, completed=True)
    assert chief.process.poll() is None


def test_a_newer_process_takes_over_the_id_and_the_older_one_is_refused(chief: HandMade) -> None:
    old = chief.joined()
    trial = granted(old)
    new = chief.joined(incarnation="2")
    with pytest.raises(RefusedError, match="newer process"):
        old.create_trial("w")
    with pytest.raises(LostError):
        old.report(trial, Report(1, {"loss": 0.0}))
    with pytest.raises(LostError):
        old.end(trial, completed=True)
    again = granted(new)
    assert (again.trial_id, again.attempt) == (trial.trial_id, 2)
    assert again.fence > trial.fence
    assert new.beat(again.fence) is Verdict.GO_ON
    assert new.beat(trial.fence) is Verdict.LOST


def test_a_worker_with_another_study_is_refused(chief: HandMade) -> None:
    with pytest.raises(RefusedError, match="another version of study"):
        chief.client().join("here", 1, "cpu", "0" * 64)


def test_an_idle_worker_is_answered_and_nobody_waits_behind_it(chief: HandMade) -> None:
    clients = {name: chief.joined(name) for name in "abc"}
    trials = {name: granted(clients[name], name) for name in "ab"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        idle = pool.submit(clients["c"].create_trial, "c")
        for name, trial in trials.items():
            assert clients[name].beat(trial.fence) is Verdict.GO_ON
        assert idle.result(PATIENCE_S) is None


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer wrong", "bearer"])
def test_nobody_without_the_token_reads_or_writes(chief: HandMade, token: str | None) -> None:
    before = status_of(chief.run)["trials"]
    metadata = [] if token is None else [(wire.AUTHORIZATION, token)]
    metadata += [(wire.WORKER, "w"), (wire.INCARNATION, "1")]
    with grpc.insecure_channel(chief.address) as channel:
        oracle = wire.stubs.OracleStub(channel)
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        calls = [
            (oracle.CreateTrial, wire.service.CreateTrialRequest(tuner_id="w")),
            (oracle.GetBestTrials, wire.service.GetBestTrialsRequest(num_trials=1)),
            (fleet.Join, fleet_pb2.JoinRequest(study_digest=digest_of(STUDY))),
            (fleet.SendWeights, iter([fleet_pb2.WeightsChunk(data=b"x")])),
            (fleet.Drain, fleet_pb2.DrainRequest(immediate=True)),
        ]
        for method, request in calls:
            with pytest.raises(grpc.RpcError) as refused:
                method(request, metadata=metadata, timeout=PATIENCE_S)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert status_of(chief.run)["trials"] == before
    assert status_of(chief.run)["workers"] == []
    assert isinstance(chief.joined().create_trial("w"), Granted)


def test_weights_arrive_whole_or_not_at_all(chief: HandMade, tmp_path: pathlib.Path) -> None:
    client = chief.joined()
    trial = granted(client)
    client.report(trial, Report(1, {"loss": 0.5}))
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(3 * wire.CHUNK_BYTES + 17))
    kept = chief.run.weights / f"{trial.trial_id}.weights.h5"

    metadata = [(wire.AUTHORIZATION, wire.bearer(chief.run.token)), (wire.FENCE, str(trial.fence))]
    damaged = [
        fleet_pb2.WeightsChunk(trial_id=trial.trial_id, data=b"some"),
        fleet_pb2.WeightsChunk(trial_id=trial.trial_id, sha256="0" * 64),
    ]
    with grpc.insecure_channel(chief.address) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as refused:
            fleet.SendWeights(iter(damaged), metadata=metadata, timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.DATA_LOSS
    assert list(chief.run.weights.iterdir()) == []

    assert client.wants_weights(trial, 0.5)
    client.send_weights(trial, file)
    client.end(trial, completed=True)
    assert kept.read_bytes() == file.read_bytes()
    # Only a better trial's weights are wanted from now on.
    second = granted(client)
    assert not client.wants_weights(second, 0.6)
    assert client.wants_weights(second, 0.4)


def test_a_second_chief_is_refused_the_port_and_the_run(
    chief: HandMade, tmp_path: pathlib.Path
) -> None:
    assert chief.run.chief_lives
    same_port = HandMade(tmp_path / "runs", "other", chief.port)
    _, err = same_port.process.communicate(timeout=PATIENCE_S)
    assert same_port.process.returncode == 2
    assert "is in use" in err
    assert not (tmp_path / "runs" / "other").exists()
    same_run = HandMade(tmp_path / "runs", "hand", free_port())
    _, err = same_run.process.communicate(timeout=PATIENCE_S)
    assert same_run.process.returncode == 2
    assert "in use by another process" in err
    assert chief.process.poll() is None


def test_a_worker_by_hand_finds_the_token_of_the_run_it_joins(chief: HandMade) -> None:
    # Started at the same moment, so it has to wait for the chief's run to be there.
    role = env.Role("by-hand", "127.0.0.1", chief.port).to_env()
    worker = subprocess.run(
        [sys.executable, "launch.py", "run", str(STUDY), "--runs", str(chief.folder.parent)],
        cwd=ROOT,
        env={**os.environ, **role, **QUICK},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert worker.returncode == 0, worker.stderr
    assert chief.process.wait(PATIENCE_S) == 0
    assert {record.worker for record in chief.run.reader().records()} == {"by-hand"}
