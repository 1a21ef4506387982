"""The one file that opens a chief to a worker: the run's token, then the chief's certificate.

The first line is the token. What follows, if anything does, are certificates in PEM: a worker
that has some trusts those alone. The file is readable by its owner alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import secrets
import stat

from hpo import env
from hpo.errors import PlaceError, UsageError

log = logging.getLogger("tunefleet")

_TOKEN = re.compile(r"[!-~]{16,512}")
_BLOCK = r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*"
_CERTIFICATES = re.compile(f"({_BLOCK})*")
# Many times more than a token and a chain of certificates.
_MOST = 1 << 20


@dataclasses.dataclass(frozen=True)
class Secret:
    """What opens a chief: its run's token, and the certificates (PEM) to know it by, if any."""

    token: str
    certificates: str = ""


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(32)


def read(path: pathlib.Path) -> Secret:
    """The secret in the file at ``path``; UsageError where there is none, or no whole one."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise UsageError(
            f"cannot read the token in {path}: {error.strerror}: "
            f"set {env.TOKEN_FILE} to the run's token file"
        ) from error
    first, _, rest = content.decode("ascii", "replace").partition("\n")
    token = first.strip()
    if not _TOKEN.fullmatch(token) or not _CERTIFICATES.fullmatch(rest.lstrip()):
        raise UsageError(
            f"{path} is not a run's token file: its first line is to be the token, and the rest, "
            "if anything, certificates in PEM: copy the file `token` of the run's folder again"
        )
    if mode & stat.S_IROTH:
        log.warning("everybody on this host can read the token: chmod 600 %s", path)
    return Secret(token, rest.strip())


def to_text(secret: Secret) -> str:
    """What a token file holds."""
    return "\n".join(filter(None, (secret.token, secret.certificates.strip()))) + "\n"


def write(path: pathlib.Path, secret: Secret) -> None:
    """Puts ``secret`` into the file at ``path``, whole or not at all; PlaceError if it cannot."""
    try:
        write_private(path, to_text(secret).encode())
    except OSError as error:
        raise PlaceError(f"cannot write {path}: {error.strerror}") from error


def write_private(path: pathlib.Path, content: bytes) -> None:
    """Makes or replaces a file that nobody but its owner can read, at any moment."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        draft.rename(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        raise
