"""Hosts that are reached by SSH, each a namespace of this machine: network, processes, files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import secrets
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.cli_runs import ROOT
from tests.support.network_namespaces import Network

USER, HOME = "tune", "/home/tune"
_FILE = ROOT / "cluster" / "vm" / "on-premises.yaml"
# Each host sees folders of its own here, and this machine's everywhere else.
_INSIDE = """
set -e
mount -t proc proc /proc
mount --bind "$0/home" /home
mount --bind "$0/tmp" /tmp
mount --bind "$0/passwd" /etc/passwd
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
hostname "$1"
ip link set lo up
exec /usr/sbin/sshd -D -e -f "$0/sshd_config"
"""


class SshHosts:
    """So many hosts with sshd, and one more, which is where a person sits: the last.

    What `ray up` would install lies there already. Raises OSError or CalledProcessError where
    this machine cannot have namespaces or has no sshd.
    """

    def __init__(self, hosts: int, scratch: pathlib.Path) -> None:
        self.network = Network(hosts + 1)
        self.desk = hosts
        self._scratch = scratch
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._make_keys()
            for number in range(hosts + 1):
                self._make(number)
                self._daemons.append(self._start(number))
            self.config = self._cluster_file(hosts)
        except BaseException:
            self.close()
            raise

    def home(self, number: int) -> pathlib.Path:
        """The home of a host's user, as it is seen from outside."""
        return self._folder(number) / "home" / USER

    def type(self, *words: str, **own: str) -> subprocess.Popen[str]:
        """A command that a person types, in the checkout."""
        return subprocess.Popen(
            [*self._enter(self.desk), "env", f"--chdir={ROOT}", *words],
            env={**_plain(), **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def done(self, *words: str, timeout: float = 600) -> str:
        """The output of a command that a person types and that goes well."""
        typed = self.type(*words)
        try:
            said, _ = typed.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            typed.kill()
            said, _ = typed.communicate()
            raise AssertionError(f"{words}: not in {timeout} s: {said[-3000:]}") from None
        assert typed.returncode == 0, f"{words}: {typed.returncode}: {said[-3000:]}"
        return said

    def running(self, number: int) -> list[str]:
        """The commands that run on a host, sshd's aside."""
        return [words for _, words in self._processes(number) if "sshd" not in words]

    def close(self) -> None:
        """Ends everything on all hosts and takes them away."""
        self.network.close()
        for daemon in self._daemons:
            daemon.wait()

    def _folder(self, number: int) -> pathlib.Path:
        return self._scratch / f"h{number}"

    def _make_keys(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._scratch / name]
            subprocess.run(words, check=True, capture_output=True)

    def _make(self, number: int) -> None:
        folder, home = self._folder(number), self.home(number)
        for path in (home / ".ssh", home / ".ray", folder / "tmp"):
            path.mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        passwd = pathlib.Path("/etc/passwd").read_text()
        # Before root, whose number it has: programs ask whose home it is.
        (folder / "passwd").write_text(f"{USER}:x:0:0::{HOME}:/bin/bash\n{passwd}")
        (folder / "sshd_config").write_text(
            f"HostKey {self._scratch}/host_key\nAuthorizedKeysFile {self._scratch}/key.pub\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\n"
        )
        (home / ".bashrc").touch()
        if number == self.desk:
            (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
            key = home / ".ssh" / "id_ed25519"
            key.write_bytes((self._scratch / "key").read_bytes())
            key.chmod(0o600)
        self._install(home)

    def _install(self, home: pathlib.Path) -> None:
        """What setup.sh would download: an environment with the packages of this one."""
        environment = home / "tunefleet" / ".venv"
        words = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
        subprocess.run(words, check=True)
        (packages,) = environment.glob("lib/python*/site-packages")
        here = sysconfig.get_path("purelib")
        (packages / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        for name in ("ray", "tensorboard"):
            script = pathlib.Path(sys.executable).with_name(name).read_text()
            body = script.partition("\n")[2]
            target = environment / "bin" / name
            target.write_text(f"#!{HOME}/tunefleet/.venv/bin/python\n{body}")
            target.chmod(0o755)
        locks = [ROOT / f"requirements-{name}.txt" for name in ("gpu", "vm")]
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
        (environment / "locks").write_text(f"{digest}  -\n")

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        words = ["ip", "netns", "exec", self.network.name(number)]
        words += ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"]
        words += ["sh", "-c", _INSIDE, str(self._folder(number)), f"host{number}"]
        log = (self._folder(number) / "sshd.log").open("wb")
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _enter(self, number: int) -> list[str]:
        """What a command is begun with that runs on a host."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for pid, words in self._processes(number):
                if words.startswith(("sshd:", "/usr/sbin/sshd")):
                    spaces = ["--mount", "--pid", "--uts", "--net"]
                    return ["nsenter", f"--target={pid}", *spaces]
            time.sleep(0.1)
        raise AssertionError(f"no sshd on host {number}")

    def _processes(self, number: int) -> Iterator[tuple[str, str]]:
        """The processes of a host: their number here, and what they were started with."""
        words = ["ip", "netns", "pids", self.network.name(number)]
        for pid in subprocess.run(words, capture_output=True, text=True).stdout.split():
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                if command:
                    yield pid, command.replace(b"\0", b" ").decode(errors="replace")

    def _cluster_file(self, hosts: int) -> pathlib.Path:
        """The on-premises file with these hosts in it, and nothing else changed."""
        config: dict[str, Any] = yaml.safe_load(_FILE.read_text())
        addresses = [self.network.address(number) for number in range(hosts)]
        config["provider"] |= {"head_ip": addresses[0], "worker_ips": addresses[1:]}
        config["auth"] |= {"ssh_user": USER}
        config |= {"min_workers": hosts - 1, "max_workers": hosts - 1}
        path = self._scratch / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return path


def _plain() -> dict[str, str]:
    """The environment of somebody who has typed what the cluster file says."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}/usr/sbin:/usr/bin:/sbin:/bin"
    own = {"HOME": HOME, "USER": USER, "PATH": path, "RAY_AUTH_MODE": "token"}
    return {**own, "LANG": "C.UTF-8", "TERM": "dumb"}
