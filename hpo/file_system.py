"""On which file systems a ledger is safe: SQLite's write-ahead log needs one of this host's own."""

from __future__ import annotations

import os
import pathlib
import re

from hpo.errors import PlaceError

_MOUNTS = pathlib.Path("/proc/self/mountinfo")
# Their locks and shared memory reach no other host, or they do not say when data is on a disk.
_NETWORK = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "virtiofs", "vboxsf"),
}
# Disks of this host that happen to be served by a process.
_FUSE_DISKS = {"fuseblk"}
_ESCAPED = re.compile(r"\\([0-7]{3})")


def check(folder: pathlib.Path, mounts: pathlib.Path = _MOUNTS) -> None:
    """Raises PlaceError where ``folder``, which need not be there yet, cannot keep a ledger.

    ``mounts`` lists what is mounted; where there is no such list, nothing is refused.
    """
    kind = kind_of(folder, mounts)
    if kind is not None and _is_remote(kind):
        raise PlaceError(
            f"{folder} lies on a network file system ({kind}), which cannot keep a ledger safe: "
            "give --runs a folder on a disk of this host"
        )


def kind_of(folder: pathlib.Path, mounts: pathlib.Path = _MOUNTS) -> str | None:
    """The type of the file system that ``folder`` lies on; None where nobody says."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = pathlib.Path(os.path.realpath(folder))
    found, depth = None, -1
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = pathlib.Path(_ESCAPED.sub(lambda m: chr(int(m[1], 8)), mount.split(" ")[4]))
        # Of two at the same point the later one lies on top.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = source.split(" ")[0], len(point.parts)
    return found


def _is_remote(kind: str) -> bool:
    return kind in _NETWORK or (kind.startswith("fuse") and kind not in _FUSE_DISKS)
