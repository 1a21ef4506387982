"""A real control plane on loopback, and nodes whose pods are processes of this machine.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real ones; `build.sh`
builds them once. The kubelets are small ones of our own (kubelet/), since there are no
containers here.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.k8s.api import Api
from tests.support.cli_runs import PATIENCE_S, ROOT, wait_until

HERE = pathlib.Path(__file__).resolve().parent
BRIDGE, BRIDGE_ADDRESS = "tunefleet-k8s", "10.79.0.1"
IMAGES = ("tunefleet:1", "tunefleet-gpu:1")
# Their own limit of 20 calls a second would make a thousand pods a matter of minutes.
CALLS = ("--kube-api-qps=300", "--kube-api-burst=600")


def binaries() -> pathlib.Path:
    """Where `build.sh` puts what it builds."""
    done = subprocess.run(
        [HERE / "build.sh", "--where"], capture_output=True, text=True, check=True
    )
    return pathlib.Path(done.stdout.strip())


class ControlPlane:
    """Started as it is made; ``close`` ends every process of it, and its pods with them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._bin = binaries()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "kubeconfig"
        # What tests tell trials: pods see it as /told.
        self.told = folder / "told"
        self.told.mkdir()
        try:
            self._make_bridge()
            self._certificates()
            self._start_all()
        except BaseException:
            self.close()
            raise

    def kubectl(self, *words: str, said: str | None = None, check: bool = True) -> str:
        """What kubectl prints; fails with what it said."""
        kubectl = shutil.which("kubectl", path=str(pathlib.Path(sys.executable).parent))
        assert kubectl
        done = subprocess.run(
            [kubectl, *words],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            input=said,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
        return done.stdout + done.stderr

    def check(self) -> None:
        """Fails where a part of the cluster has ended, which then nothing goes on without."""
        for name, process in self._processes.items():
            log = self.folder / f"{name}.log"
            assert process.poll() is None, f"{name} has ended:\n{log.read_text()[-3000:]}"

    def log(self, pod: dict[str, Any]) -> str:
        """What the first container of a pod has printed so far."""
        container = pod["spec"]["containers"][0]["name"]
        path = self._home(pod) / f"{container}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def _home(self, pod: dict[str, Any]) -> pathlib.Path:
        """Where a pod's files lie."""
        node = pod["spec"].get("nodeName", "none")
        return self.folder / "pods" / node / str(pod["metadata"]["uid"])

    def add_node(self, name: str, number: int, *words: str) -> None:
        """A node whose pods are processes; ``number`` parts its pods' addresses from others'."""
        # Itself, not a link to it: a checkout may lie in a folder that pods have one of their own.
        python, base = pathlib.Path(sys.prefix).resolve(), pathlib.Path(sys.base_prefix).resolve()
        shown = {f"{ROOT}:/app", f"{self.told}:/told", str(python), str(base)}
        variables = {
            "PATH": f"{python}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            # What a kubelet tells of the Service; nothing here leads its own address on.
            "KUBERNETES_SERVICE_HOST": BRIDGE_ADDRESS,
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self._port),
        }
        options = [
            *("--kubeconfig", str(self.kubeconfig), "--node", name),
            *("--folder", str(self.folder / "pods" / name), "--bridge", BRIDGE),
            *("--address", BRIDGE_ADDRESS, "--subnet", f"10.79.{number}"),
            *("--port", str(10250 + number), "--entrypoint", "python launch.py"),
            *("--workdir", "/app"),
        ]
        for image in IMAGES:
            options += ["--image", image]
        for path in sorted(shown):
            options += ["--bind", path]
        for variable, value in variables.items():
            options += ["--variable", f"{variable}={value}"]
        self._start(f"kubelet-{name}", "process-kubelet", *options, *words)
        wait_until(lambda: self._is_ready(name), f"node {name}")

    def add_kinds(self, definitions: str) -> None:
        """Kinds that are not Kubernetes's own, by the YAML of their definitions."""
        self.kubectl("create", "-f", "-", said=definitions)
        for row in yaml.safe_load_all(definitions):
            name = row["metadata"]["name"]
            wait_until(lambda name=name: self._is_known(name), f"the kinds {name}")

    def start_kuberay(self) -> None:
        """KubeRay's operator with its kinds."""
        self.add_kinds((self._bin / "kuberay-crds.yaml").read_text())
        self._start(
            "ray-operator",
            "ray-operator",
            *("--kubeconfig", str(self.kubeconfig), "--enable-leader-election=false"),
            # No name server here knows the head's Service; the API server knows its pod.
            "--use-kubernetes-proxy",
            *(
                "--metrics-addr=127.0.0.1:0",
                f"--health-probe-bind-address=127.0.0.1:{_free_port()}",
            ),
        )

    def kill_container(self, pod: dict[str, Any], container: str) -> None:
        """Kills the first process of a container, and so all of it, as a lack of memory does."""
        os.kill(int((self._home(pod) / f"{container}.pid").read_text()), signal.SIGKILL)

    def kill_node(self, name: str) -> None:
        """The node's machine is gone from one moment to the next, with all that ran on it."""
        process = self._processes.pop(f"kubelet-{name}")
        process.kill()
        process.wait()
        self.kubectl("delete", "node", name)

    def close(self) -> None:
        """Ends everything."""
        for name, process in reversed(self._processes.items()):
            process.send_signal(signal.SIGKILL if name == "etcd" else signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _ip("link", "delete", BRIDGE, check=False)
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        for line in names.stdout.splitlines():
            if line.startswith("tfpod-"):
                _ip("netns", "delete", line.split()[0], check=False)

    def _make_bridge(self) -> None:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", f"{BRIDGE_ADDRESS}/16", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")

    def _certificates(self) -> None:
        authority = _Authority(self.folder)
        authority.sign("apiserver", "kube-apiserver", [BRIDGE_ADDRESS, "10.0.0.1"])
        authority.sign("admin", "tester", groups=["system:masters"])
        self._account_key = authority.plain_key("accounts")

    def _start_all(self) -> None:
        client, peer, self._port = _free_port(), _free_port(), _free_port()
        etcd = f"http://127.0.0.1:{client}"
        self._start(
            "etcd",
            "etcd",
            *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        )
        self._write_kubeconfig()
        self._start(
            "apiserver",
            "kube-apiserver",
            *("--etcd-servers", etcd, "--secure-port", str(self._port)),
            # Where pods reach it too.
            *("--bind-address", BRIDGE_ADDRESS, "--advertise-address", BRIDGE_ADDRESS),
            *("--client-ca-file", self._file("ca.pem")),
            *("--tls-cert-file", self._file("apiserver.pem")),
            *("--tls-private-key-file", self._file("apiserver.key")),
            *("--kubelet-client-certificate", self._file("admin.pem")),
            *("--kubelet-client-key", self._file("admin.key")),
            *("--service-account-key-file", self._account_key),
            *("--service-account-signing-key-file", self._account_key),
            *("--service-account-issuer", "https://tests.invalid"),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "Node,RBAC"),
        )
        self.api = Api(self.kubeconfig)
        wait_until(self._answers, "the API server")
        own = ("--kubeconfig", str(self.kubeconfig))
        self._start(
            "controller-manager",
            "kube-controller-manager",
            *own,
            *("--service-account-private-key-file", self._account_key),
            *("--root-ca-file", self._file("ca.pem")),
            # A node is gone where a test takes it away, and not where this machine is slow.
            f"--node-monitor-grace-period={PATIENCE_S:.0f}s",
            *("--use-service-account-credentials=false", "--leader-elect=false"),
            *("--terminated-pod-gc-threshold=0", f"--secure-port={_free_port()}"),
            *CALLS,
        )
        self._start(
            "scheduler",
            "kube-scheduler",
            *own,
            *("--leader-elect=false", f"--secure-port={_free_port()}"),
            *CALLS,
        )
        account = ("serviceaccounts", "default", "default")
        wait_until(lambda: self.api.one(*account), "an account")
        self._add_storage()

    def _add_storage(self, volumes: int = 24) -> None:
        """A default storage class, and volumes of it that are folders."""
        objects: list[dict[str, object]] = [
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {
                    "name": "folders",
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": "kubernetes.io/no-provisioner",
            }
        ]
        for number in range(volumes):
            path = self.folder / "volumes" / str(number)
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": f"folder-{number}"},
                    "spec": {
                        "storageClassName": "folders",
                        "capacity": {"storage": "20Gi"},
                        "accessModes": ["ReadWriteOncePod"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "hostPath": {"path": str(path)},
                    },
                }
            )
        self.kubectl("create", "-f", "-", said=yaml.safe_dump_all(objects))

    def _write_kubeconfig(self) -> None:
        cluster = {
            "server": f"https://{BRIDGE_ADDRESS}:{self._port}",
            "certificate-authority": self._file("ca.pem"),
        }
        user = {
            "client-certificate": self._file("admin.pem"),
            "client-key": self._file("admin.key"),
        }
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tester", "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tester"}}],
            "current-context": "tests",
        }
        self.kubeconfig.write_text(yaml.safe_dump(whole))

    def _file(self, name: str) -> str:
        return str(self.folder / name)

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _answers(self) -> bool:
        self.check()
        return self.api.answers()

    def _is_ready(self, name: str) -> bool:
        self.check()
        node = self.api.one("nodes", name)
        rows = node["status"].get("conditions", ()) if node else ()
        taints = node["spec"].get("taints", ()) if node else ()
        given_up = any("not-ready" in row["key"] for row in taints)
        return not given_up and any(row["status"] == "True" for row in rows)

    def _is_known(self, kind: str) -> bool:
        self.check()
        found = self.api.one("customresourcedefinitions", kind)
        rows = found.get("status", {}).get("conditions", ()) if found else ()
        return any(row["type"] == "Established" and row["status"] == "True" for row in rows)


class _Authority:
    """Signs certificates, all in one folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._key = self._new_key("ca")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._write("ca", self._builder(self._name, self._key, is_authority=True))

    def sign(
        self, file: str, name: str, addresses: Sequence[str] = (), groups: Sequence[str] = ()
    ) -> None:
        """A certificate for a server at ``addresses``, or for a person of ``groups``."""
        key = self._new_key(file)
        rows = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*rows, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key)
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._write(file, builder)

    def plain_key(self, file: str) -> str:
        """A key without a certificate."""
        self._new_key(file)
        return str(self._folder / f"{file}.key")

    def _new_key(self, file: str) -> rsa.RSAPrivateKey:
        key = rsa.generate_private_key(65537, 2048)
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (self._folder / f"{file}.key").write_bytes(text)
        return key

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, is_authority: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )

    def _write(self, file: str, builder: x509.CertificateBuilder) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        text = signed.public_bytes(serialization.Encoding.PEM)
        (self._folder / f"{file}.pem").write_bytes(text)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)
