"""Certificates: what a chief shows beyond loopback, and what a worker knows it by.

A run has a certificate of its own, which signs itself and which workers trust alone, by
whatever address they find the chief. A person can give another one instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import os
import pathlib
import ssl
import time
from typing import TYPE_CHECKING

from hpo import env, token_file
from hpo.errors import PlaceError, UsageError

if TYPE_CHECKING:
    from cryptography import x509

# The name in every run's own certificate. Whose it is, its key says.
_NAME = "tunefleet"
_FILE = "tls.pem"
_VALID = datetime.timedelta(days=3650)
# Clocks of hosts differ.
_BEFORE = datetime.timedelta(days=2)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a chief shows of itself: TLS for its connections, and its certificate in PEM."""

    context: ssl.SSLContext
    certificate: str


def identity(folder: pathlib.Path) -> Identity:
    """The certificate that the environment names, or else the one of the run in ``folder``.

    The latter is made where there is none yet. Raises UsageError for a certificate that
    cannot be used, PlaceError where the folder cannot be written.
    """
    if given := given_identity():
        return given
    path = folder / _FILE
    if not path.exists():
        try:
            token_file.write_private(path, "".join(make()).encode())
        except OSError as error:
            raise PlaceError(f"cannot write {path}: {error.strerror}") from error
    return _load(path, path)


def given_identity() -> Identity | None:
    """The certificate that the environment names, if it does; UsageError if it is of no use."""
    named = {name: os.environ.get(name, "") for name in (env.TLS_CERT, env.TLS_KEY)}
    if not any(named.values()):
        return None
    missing = [name for name, value in named.items() if not value]
    if missing:
        raise UsageError(
            f"{missing[0]} not set: a certificate of your own needs {env.TLS_CERT} and "
            f"{env.TLS_KEY}"
        )
    return _load(pathlib.Path(named[env.TLS_CERT]), pathlib.Path(named[env.TLS_KEY]))


@functools.cache
def pinned_name(certificates: str) -> str | None:
    """The name under which to ask a chief for the one certificate that is trusted.

    It is the certificate's own name, so that the chief may be found by any address. None
    where ``certificates`` (PEM) are authorities': theirs must be for the chief's address.
    Raises UsageError where they are garbled.
    """
    first = _parse(certificates.encode(), "the token file")[0]
    return None if _is_authority(first) else _names(first)[0].replace("*", "chief")


def system_roots() -> bytes | None:
    """The authorities that this system trusts; None leaves the choice to gRPC."""
    path = ssl.get_default_verify_paths().cafile
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_bytes() if path else None
    return None


def make() -> tuple[str, str]:
    """A new key, and a certificate that it signed itself, both as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        # Whoever trusts it trusts nothing that was signed with its key.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, plain)
    return private.decode(), _pem(certificate)


def _load(chain: pathlib.Path, key: pathlib.Path) -> Identity:
    for path in (chain, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}: see {env.TLS_CERT}") from error
    leaf = _parse(chain.read_bytes(), str(chain))[0]
    if leaf.not_valid_after_utc.timestamp() < time.time():
        raise UsageError(
            f"the certificate in {chain} expired on {leaf.not_valid_after_utc:%Y-%m-%d}: renew it"
        )
    _names(leaf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        # Without the function a key with a password would be asked for on the terminal.
        context.load_cert_chain(chain, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"the key in {key} does not open the certificate in {chain}: give the key, without "
            f"a password, that it was made for ({getattr(error, 'reason', None) or error})"
        ) from error
    return Identity(context, _pem(leaf))


def _parse(content: bytes, where: str) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise UsageError(f"no certificate in PEM can be read from {where}: {error}") from error


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    with contextlib.suppress(x509.ExtensionNotFound):
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    return False


def _names(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate is for; UsageError where it says none."""
    from cryptography import x509

    names: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        own = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += own.get_values_for_type(x509.DNSName)
        names += map(str, own.get_values_for_type(x509.IPAddress))
    if not names:
        raise UsageError(
            f"the certificate {certificate.subject.rfc4514_string()!r} is for no host: make one "
            "with a subject alternative name"
        )
    return names


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()
