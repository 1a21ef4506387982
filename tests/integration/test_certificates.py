"""Certificates of a person's own, and token files that are none."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Callable

import pytest

from hpo import env, token_file
from hpo.errors import RefusedError
from hpo.fleet.client import ChiefClient
from hpo.study import digest_of
from tests.integration.test_bad_input import refused
from tests.support import certificates
from tests.support.manual_chief import STUDY, HandMade
from tests.support.remote_chiefs import SLOW, worker_by_hand


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
