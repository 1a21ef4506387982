"""Strangers, impostors, certificates and networks that are cut: real processes and sockets."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
import psutil
import pytest

from hpo import env, tls, token_file
from hpo.address import host_of
from hpo.errors import RefusedError
from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.fleet.channel import open_channel
from hpo.fleet.client import ChiefClient, Granted
from hpo.run import Run, open_run
from hpo.study import digest_of
from hpo.token_file import Secret
from hpo.trial import Report
from tests import certificates
from tests.by_hand import STUDY, HandMade, free_port
from tests.live import ROOT, LiveRun, environment, launch, wait_until
from tests.network import Network, ip
from tests.test_bad_input import refused

Start = Callable[..., LiveRun]
SLOW = str(STUDY)


@pytest.fixture(scope="module")
def beyond() -> Iterator[str]:
    """An address of this machine that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for found in addresses:
            if found.family is socket.AF_INET and not found.address.startswith("127."):
                yield found.address
                return
    ip("link", "add", "tunefleet0", "type", "dummy")
    try:
        ip("address", "add", "198.51.100.1/24", "dev", "tunefleet0")
        ip("link", "set", "tunefleet0", "up")
        yield "198.51.100.1"
    finally:
        ip("link", "delete", "tunefleet0")


@pytest.fixture(params=["loopback", "beyond"])
def host(request: pytest.FixtureRequest, beyond: str) -> str:
    return beyond if request.param == "beyond" else "127.0.0.1"


@pytest.fixture
def make_chief(tmp_path: pathlib.Path) -> Iterator[Callable[..., HandMade]]:
    """Starts chiefs by hand at a host, with variables of their own."""
    made: list[HandMade] = []

    def begin(host: str, own: dict[str, str] | None = None, trials: int = 2) -> HandMade:
        name = f"hand{len(made)}"
        made.append(HandMade(tmp_path / "runs", name, free_port(host), trials, host, own))
        return made[-1]

    yield begin
    for chief in made:
        chief.process.kill()
        chief.process.communicate()


# --- strangers ----------------------------------------------------------------------------


def older_token(runs: pathlib.Path) -> str:
    """The token of a run that was before."""
    arguments = ("run", SLOW, "--id", "older", "--trials", "1", "--runs", str(runs))
    done = launch(*arguments, env={"SLOW_STEPS": "1"})
    assert done.returncode == 0, done.stderr
    return open_run(runs, "older").token


def call_everything(address: str, certificates: str, token: str | None) -> None:
    """Tries what would read or change a search; every call has to be refused."""
    metadata = [] if token is None else [(wire.AUTHORIZATION, wire.bearer(token))]
    metadata += [(wire.WORKER, "worker-0"), (wire.INCARNATION, "1"), (wire.FENCE, "1")]
    ended = wire.types.Trial(trial_id="0000", status=wire.types.COMPLETED)
    update = wire.service.UpdateTrialRequest(trial_id="0000", metrics={"loss": -9.0}, step=1)
    too_long = wire.service.CreateTrialRequest(tuner_id="w" * 2 * wire.MESSAGE_BYTES)
    fetch = fleet_pb2.FetchRequest(trial_id="0000")
    with open_channel(address, certificates) as channel:
        oracle = wire.stubs.OracleStub(channel)
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        for method, request in [
            (oracle.GetSpace, wire.service.GetSpaceRequest()),
            (oracle.GetBestTrials, wire.service.GetBestTrialsRequest(num_trials=1)),
            (oracle.CreateTrial, wire.service.CreateTrialRequest(tuner_id="worker-0")),
            (oracle.CreateTrial, too_long),
            (oracle.UpdateTrial, update),
            (oracle.EndTrial, wire.service.EndTrialRequest(trial=ended)),
            (fleet.Join, fleet_pb2.JoinRequest(study_digest=digest_of(STUDY))),
            (fleet.Leave, fleet_pb2.LeaveRequest()),
            (fleet.SendWeights, iter([fleet_pb2.WeightsChunk(trial_id="0000", data=b"x")])),
            (lambda *asked, **how: next(fleet.FetchCheckpoint(*asked, **how)), fetch),
            (fleet.Scale, fleet_pb2.ScaleRequest(workers=9)),
            (fleet.Drain, fleet_pb2.DrainRequest(immediate=True)),
            (channel.unary_unary("/tunefleet.Fleet/Nothing"), b""),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                method(request, metadata=metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def too_long_with_token(address: str, secret: Secret) -> None:
    """A message above the limit from somebody who may call."""
    metadata = [(wire.AUTHORIZATION, wire.bearer(secret.token))]
    request = fleet_pb2.LogRequest(trial_id="0000", text=bytes(wire.MESSAGE_BYTES + 1))
    with open_channel(address, secret.certificates) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            fleet.SendLog(request, metadata=metadata, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def send(address: str, content: bytes) -> None:
    """Sends bytes to a port, which has to close the connection without an answer of gRPC's."""
    with socket.create_connection((host_of(address), int(address.rpartition(":")[2]))) as end:
        end.settimeout(15)
        end.sendall(content)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := end.recv(4096):
                answer += more
    # At most a TLS alert.
    assert len(answer) <= 7


def client_hello() -> bytes:
    """What a client of TLS says first."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="tunefleet")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_strangers_are_refused_and_logged_and_change_nothing(
    start: Start, tmp_path: pathlib.Path, host: str
) -> None:
    old = older_token(tmp_path / "runs")
    slowly = {"SLOW_STEP_S": "0.7"}
    run = start("open", "run", SLOW, "--id", "open", "--trials", "5", "--host", host, env=slowly)
    run.busy_worker()
    address = (run.status() or {})["chief"]["address"]
    secret = token_file.read(run.runs / "open" / "token")
    is_tls = host != "127.0.0.1"
    assert bool(secret.certificates) == is_tls

    for token in (None, "wrong", old):
        call_everything(address, secret.certificates, token)
    too_long_with_token(address, secret)
    hello = client_hello()
    send(address, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    send(address, os.urandom(5000))
    send(address, hello[:60] + os.urandom(len(hello) - 60) if is_tls else hello)
    if is_tls:
        send(address, GREETING)
        with pytest.raises(grpc.RpcError):
            _leave_in_the_clear(address, secret.token)

    log = run.runs / "open" / "logs" / "chief.log"
    wait_until(lambda: "TLS" in log.read_text() or not is_tls, "the last refusal is logged")
    assert _refusals(log, "no or a wrong token")
    assert _refusals(log, f"above {wire.MESSAGE_BYTES} bytes")
    assert _refusals(log, "does not speak TLS" if is_tls else "does not speak gRPC")
    assert len(_refusals(log, "")) <= 10

    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert [(row["state"], row["attempt"]) for row in rows] == [("COMPLETED", 1)] * 5
    assert {row["worker"] for row in rows} <= {"worker-0", "worker-1"}
    assert all(row["value"] > 0 for row in rows)


def _refusals(log: pathlib.Path, what: str) -> list[str]:
    lines = log.read_text().splitlines()
    return [line for line in lines if "refused" in line and what in line]


def _leave_in_the_clear(address: str, token: str) -> None:
    with grpc.insecure_channel(address) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        metadata = [(wire.AUTHORIZATION, wire.bearer(token)), (wire.WORKER, "worker-0")]
        fleet.Leave(fleet_pb2.LeaveRequest(), metadata=metadata, timeout=5)


def test_a_stranger_cannot_fill_the_log(make_chief: Callable[..., HandMade]) -> None:
    chief = make_chief("127.0.0.1")
    address = (chief.run, chief.address)[1]
    with grpc.insecure_channel(address) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(300):
            with pytest.raises(grpc.RpcError):
                fleet.Drain(fleet_pb2.DrainRequest(), timeout=10)
    for _ in range(100):
        send(address, b"nonsense" * 10)
    chief.process.send_signal(signal.SIGTERM)
    _, err = chief.process.communicate(timeout=30)
    assert chief.process.returncode == 75, err
    assert len(err) < 3000
    singly = len(re.findall("refused 127.0.0.1:", err))
    assert singly + sum(map(int, re.findall(r"refused (\d+) more", err))) == 400
    assert singly <= 10


# --- files --------------------------------------------------------------------------------


def test_the_token_and_the_key_are_their_owners(
    make_chief: Callable[..., HandMade], beyond: str
) -> None:
    chief = make_chief(beyond, trials=1)
    run = chief.run
    secret = token_file.read(run.token_file)
    key = run.folder / "tls.pem"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (run.token_file, key)] == [0o600, 0o600]
    assert "PRIVATE KEY" in key.read_text()
    assert "PRIVATE KEY" not in run.token_file.read_text()
    # The next chief has the same certificate, so that a copied token file stays good.
    chief.process.kill()
    chief.process.wait()
    again = HandMade(run.folder.parent, run.id, chief.port, 1, beyond)
    try:
        client = ChiefClient(again.address, secret.token, "w", "1", secret.certificates)
        client.join("here", 1, "cpu", digest_of(STUDY))
        trial = client.create_trial("w")
        assert isinstance(trial, Granted)
        client.report(trial, Report(1, {"loss": 0.5}))
        client.end(trial, completed=True)
        client.leave()
        assert again.process.wait(timeout=20) == 0
    finally:
        again.process.kill()
        again.process.communicate()


def test_on_loopback_again_the_token_file_has_no_certificate(start: Start, beyond: str) -> None:
    arguments = ("run", SLOW, "--id", "both", "--trials", "4", "--seed", "1")
    run = start("both", *arguments, "--host", beyond, env={"SLOW_STEP_S": "0.6"})
    run.busy_worker()
    assert launch("stop", "both", "--runs", str(run.runs)).returncode == 0
    assert run.wait()[0] == 75
    file = run.runs / "both" / "token"
    assert token_file.read(file).certificates
    done = launch("resume", "both", "--runs", str(run.runs))
    assert done.returncode == 0, done.stderr
    assert not token_file.read(file).certificates


# --- impostors ----------------------------------------------------------------------------


class Impostor:
    """A program at a chief's address that keeps what it is told; with TLS, or without."""

    def __init__(self, host: str, context: ssl.SSLContext | None) -> None:
        self.heard = b""
        self.connections = 0
        self._context = context
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(2)
                    self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        else:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.heard += connection.recv(1 << 16)


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_worker_gives_its_token_to_no_impostor(
    tmp_path: pathlib.Path, beyond: str, has_tls: bool
) -> None:
    (tmp_path / "true").mkdir()
    (tmp_path / "false").mkdir()
    certificate = tls.identity(tmp_path / "true").certificate
    secret = Secret(token_file.new_token(), certificate)
    token_file.write(tmp_path / "token", secret)
    context = tls.identity(tmp_path / "false").context if has_tls else None
    impostor = Impostor(beyond, context)
    try:
        done = worker_by_hand(beyond, impostor.port, tmp_path / "token")
    finally:
        impostor.close()
    assert done.returncode == 2, done.stderr
    said = "another certificate" if has_tls else "does not speak TLS"
    assert said in done.stderr.splitlines()[-1]
    assert impostor.connections
    assert secret.token.encode() not in impostor.heard
    assert not has_tls or impostor.heard == b""


def worker_by_hand(
    host: str, port: int, file: pathlib.Path, name: str = "far-1"
) -> subprocess.CompletedProcess[str]:
    """A worker that was started by hand and has left."""
    own = {**env.Role(name, host, port).to_env(), env.TOKEN_FILE: str(file)}
    done: subprocess.CompletedProcess[str] = launch(
        "run", SLOW, "--runs", str(file.parent / "none"), env=own, timeout=60
    )
    return done


# --- certificates of a person's own -------------------------------------------------------


def variables(certificate: certificates.Certificate) -> dict[str, str]:
    return {env.TLS_CERT: str(certificate.path), env.TLS_KEY: str(certificate.key_path)}


def test_a_certificate_of_ones_own(
    make_chief: Callable[..., HandMade], tmp_path: pathlib.Path, beyond: str
) -> None:
    authority = certificates.make(tmp_path, "authority")
    own = certificates.make(tmp_path, "own", beyond, issuer=authority)
    chief = make_chief(beyond, variables(own), trials=1)
    run = chief.run
    assert not (run.folder / "tls.pem").exists()
    # The run's token file has the chief's certificate, a person may put the authority's there.
    chief.joined("by-file").close()
    trusting = ChiefClient(chief.address, run.token, "w", "1", authority.path.read_text())
    trusting.join("here", 1, "cpu", digest_of(STUDY))
    # Nobody who is not asked to trust that authority does.
    stranger = ChiefClient(chief.address, run.token, "v", "1")
    with pytest.raises(RefusedError, match="another certificate"):
        stranger.join("here", 1, "cpu", digest_of(STUDY))


def test_an_authority_is_trusted_for_the_right_host_alone(
    make_chief: Callable[..., HandMade], tmp_path: pathlib.Path, beyond: str
) -> None:
    authority = certificates.make(tmp_path, "authority")
    other = certificates.make(tmp_path, "other", "203.0.113.7", issuer=authority)
    chief = make_chief(beyond, variables(other), trials=1)
    token = chief.run.token
    client = ChiefClient(chief.address, token, "w", "1", authority.path.read_text())
    with pytest.raises(RefusedError, match="for another host"):
        client.join("here", 1, "cpu", digest_of(STUDY))


# --- bad input ----------------------------------------------------------------------------


def test_certificates_that_cannot_be_used(tmp_path: pathlib.Path, beyond: str) -> None:
    own = certificates.make(tmp_path, "own", beyond)
    another = certificates.make(tmp_path, "another", beyond)
    old = certificates.make(tmp_path, "old", beyond, days=-1)
    garbled = tmp_path / "garbled.pem"
    garbled.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = [
        (own.path, None, f"{env.TLS_KEY} not set"),
        (own.path, another.key_path, "does not open the certificate"),
        (own.path, tmp_path, "cannot read"),
        (tmp_path / "none", own.key_path, "cannot read"),
        (garbled, own.key_path, "no certificate in PEM"),
        (old.path, old.key_path, "expired"),
        (certificates.make(tmp_path, "authority").path, own.key_path, "for no host"),
    ]
    for path, key, said in cases:
        named = {env.TLS_CERT: str(path), **({env.TLS_KEY: str(key)} if key else {})}
        assert said in refused(tmp_path / "runs", "run", SLOW, "--host", beyond, env=named)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "short\n",
        "two words that are no token\n",
        f"{'t' * 43}\nand something else\n",
        f"{'t' * 43}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "\x00\xff" * 40,
    ],
    ids=["missing", "empty", "short", "words", "more", "garbled certificate", "bytes"],
)
def test_a_token_file_that_is_none(tmp_path: pathlib.Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        token_file.write_private(file, content.encode("latin-1"))
    done = worker_by_hand("127.0.0.1", 9, file)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "token" in done.stderr


def test_a_port_in_use_beyond_loopback(tmp_path: pathlib.Path, beyond: str) -> None:
    with socket.create_server((beyond, 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(tmp_path / "runs", "run", SLOW, "--host", beyond, "--port", port)
    assert f"port {port} on {beyond} is in use" in line


# --- several hosts ------------------------------------------------------------------------


def test_run_says_how_to_join_from_another_host_and_that_works(
    start: Start, tmp_path: pathlib.Path
) -> None:
    slowly = {"SLOW_STEP_S": "0.4"}
    run = start(
        "wide", "run", SLOW, "--id", "wide", "--trials", "8", "--host", "0.0.0.0", env=slowly
    )
    assert run.process.stdout is not None
    lines = [run.process.stdout.readline().strip() for _ in range(4)]
    assert lines[0] == "run wide"
    words = lines[3].split()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert given.keys() == {env.TUNER_ID, env.ORACLE_IP, env.ORACLE_PORT, env.TOKEN_FILE}
    copy = tmp_path / "copy"
    shutil.copy(lines[2].split()[2].partition(":")[2], copy)
    done = worker_by_hand(given[env.ORACLE_IP], int(given[env.ORACLE_PORT]), copy)
    assert done.returncode == 0, done.stderr
    assert run.wait()[0] == 0
    assert "far-1" in {row["worker"] for row in run.read("trials")}


def test_roles_by_hand_drain_on_ctrl_c(
    make_chief: Callable[..., HandMade], tmp_path: pathlib.Path
) -> None:
    chief = make_chief("127.0.0.1", {"SLOW_STEP_S": "0.4"}, trials=9)
    run = chief.run
    worker = _begin_worker(chief.port, run, {"SLOW_STEP_S": "0.4"})
    try:
        wait_until(lambda: [r for r in run.reader().records() if r.history], "a trial has begun")
        worker.send_signal(signal.SIGINT)
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 130, err
        assert "Traceback" not in err
    finally:
        worker.kill()
        worker.communicate()
    assert [record.state for record in run.reader().records()][:1] == ["COMPLETED"]
    chief.process.send_signal(signal.SIGINT)
    _, err = chief.process.communicate(timeout=30)
    assert chief.process.returncode == 130, err


def _begin_worker(port: int, run: Run, own: dict[str, str]) -> subprocess.Popen[str]:
    role = env.Role("hand", "127.0.0.1", port).to_env()
    return subprocess.Popen(
        [sys.executable, "launch.py", "run", SLOW],
        cwd=ROOT,
        env={**os.environ, **role, env.TOKEN_FILE: str(run.token_file), **own},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(3)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"`ip netns` cannot be used here: {error}")
    yield made
    made.close()


def test_three_hosts_of_which_one_is_cut_off_for_longer_than_its_lease(
    network: Network, tmp_path: pathlib.Path
) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (runs, elsewhere):
        folder.mkdir()
    shutil.copy(STUDY, elsewhere / "slow.py")
    options = ("--id", "net", "--trials", "14", "--lease", "3", "--seed", "1")
    processes: list[subprocess.Popen[str]] = []

    def begin(number: int, name: str, hidden: pathlib.Path, *arguments: str) -> None:
        role = env.Role(name, network.address(0), 7777).to_env()
        # One report, then a while until the trial ends: its end is what comes too late.
        own = {"SLOW_STEPS": "1", "SLOW_STEP_S": "1.5", **role}
        if number:
            own[env.TOKEN_FILE] = str(elsewhere / "token")
        words = [sys.executable, str(ROOT / "launch.py"), "run", *arguments]
        processes.append(
            subprocess.Popen(
                network.command(number, words, hidden),
                cwd=elsewhere,
                env=environment(("--runs", str(runs)), own),
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        )

    try:
        begin(0, "chief", elsewhere, SLOW, "--runs", str(runs), *options)
        wait_until(lambda: (runs / "net" / "tls.pem").exists(), "the chief")
        run = Run(runs / "net")
        wait_until(lambda: run.reader().sessions(), "the chief serves")
        shutil.copy(run.token_file, elsewhere / "token")
        begin(1, "far-1", runs, "slow.py")
        begin(2, "far-2", runs, "slow.py")
        cut = wait_until(lambda: _running(run, "far-1"), "the worker works")
        network.plug(1, is_in=False)
        wait_until(lambda: _completed_by(run, cut, "far-2"), "the other one has done it")
        network.plug(1, is_in=True)
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert f"trial {cut} is no longer ours" in said[1]
    records = run.reader().records()
    lost = [record for record in records if record.failure]
    assert [(r.trial_id, r.worker, r.failure) for r in lost] == [(cut, "far-1", "PREEMPTED")]
    done = [record.trial_id for record in records if record.state == "COMPLETED"]
    assert len(done) == len(set(done)) == 14
    after = [record for record in records if record.worker == "far-1"]
    assert max(record.started_at or 0 for record in after) > (lost[0].ended_at or 0)


def _running(run: Run, worker: str) -> str | None:
    """The trial in whose middle a worker is."""
    for record in run.reader().records():
        if record.worker == worker and record.state == "RUNNING" and record.history:
            return record.trial_id
    return None


def _completed_by(run: Run, trial_id: str, worker: str) -> bool:
    return any(
        (record.trial_id, record.worker, record.state) == (trial_id, worker, "COMPLETED")
        for record in run.reader().records()
    )
