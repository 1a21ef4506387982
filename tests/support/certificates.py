"""Certificates as a person may have them: signed by an authority, for some host, for some time."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its key as files, in PEM."""

    path: pathlib.Path
    key_path: pathlib.Path
    signed: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(
    folder: pathlib.Path,
    name: str,
    host: str | None = None,
    issuer: Certificate | None = None,
    days: int = 1,
) -> Certificate:
    """A certificate for the address ``host``, or an authority's own where there is none.

    It is valid until ``days`` from now, which may have been.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.signed.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host:
        names = [x509.IPAddress(ipaddress.ip_address(host))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(path, key_path, signed, key)
