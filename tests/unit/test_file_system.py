"""A ledger is begun where it can be kept safe, and nowhere else."""

from __future__ import annotations

import pathlib

import pytest

from hpo import file_system
from hpo.errors import PlaceError

TABLE = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 0:35 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
41 40 8:2 / /home/me/disk rw - xfs /dev/sdb1 rw
42 21 0:40 / /with\\040space rw - fuse.sshfs host:/ rw
43 21 0:41 / /twice rw - ext4 /dev/sdc1 rw
44 21 0:42 / /twice rw - cifs //server/share rw
45 21 0:43 / /usb rw - fuseblk /dev/sdd1 rw
46 21 0:44 / /guest rw - 9p host0 rw
"""


@pytest.fixture
def mounts(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/runs", "nfs4"),
        ("/with space/runs", "fuse.sshfs"),
        ("/twice/runs", "cifs"),
        ("/guest", "9p"),
    ],
)
def test_a_network_file_system_is_refused_by_its_name(
    mounts: pathlib.Path, folder: str, kind: str
) -> None:
    with pytest.raises(PlaceError, match="--runs") as caught:
        file_system.check(pathlib.Path(folder), mounts)
    assert f"({kind})" in str(caught.value)


@pytest.mark.parametrize("folder", ["/srv/runs", "/home/me/disk/runs", "/homes", "/usb/runs"])
def test_a_disk_of_this_host_is_taken(mounts: pathlib.Path, folder: str) -> None:
    file_system.check(pathlib.Path(folder), mounts)


def test_a_link_does_not_hide_where_a_folder_lies(
    mounts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("/home/me")
    with pytest.raises(PlaceError, match="nfs4"):
        file_system.check(link / "runs", mounts)


def test_where_nobody_says_nothing_is_refused(tmp_path: pathlib.Path) -> None:
    file_system.check(tmp_path, tmp_path / "none")


def test_this_hosts_own_list_is_understood(tmp_path: pathlib.Path) -> None:
    assert file_system.kind_of(pathlib.Path("/proc")) == "proc"
    file_system.check(tmp_path)
