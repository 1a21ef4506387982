"""What this machine has, and what it lacks for a search."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import resource
import shutil
import socket
from collections.abc import Mapping
from typing import Any

from cluster.devices import gpus_here
from cluster.tables import size
from hpo import env
from hpo.child import ROOT
from hpo.errors import DataError

# What the project imports itself, with the names under which each may be installed.
_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras": ("keras",),
    "keras-tuner": ("keras-tuner",),
    "tensorboard": ("tensorboard",),
    "grpcio": ("grpcio",),
    "protobuf": ("protobuf",),
    "numpy": ("numpy",),
    "h5py": ("h5py",),
    "scikit-learn": ("scikit-learn",),
    "rich": ("rich",),
}
_REQUIREMENTS = ROOT / "requirements.txt"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_LITTLE_DISK = 2e9
_LITTLE_MEMORY = 2e9
_FEW_FILES = 4096


def examine(runs: pathlib.Path) -> dict[str, Any]:
    """The object that ``doctor --json`` prints; see docs/check.md."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": [_package(name, _pins()) for name in _PACKAGES],
        "cores": len(os.sched_getaffinity(0)),
        "memory": _memory(),
        "gpus": gpus_here(),
        "disk": {"runs": _disk(runs), "cache": _disk(env.cache_dir())},
        "open_files": _open_files(),
        "loopback": _can_listen(),
    }
    installed = {row["name"]: row["installed"] for row in found["packages"]}
    found["fashion_mnist"] = _fashion_mnist() if installed["numpy"] else _unknown("needs numpy")
    return {**found, "missing": _missing(found), "warnings": _warnings(found)}


def _package(name: str, pins: Mapping[str, set[str]]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "distribution": None, "installed": None, "pinned": []}
    for distribution in _PACKAGES[name]:
        row["pinned"] = sorted({*row["pinned"], *pins.get(distribution, ())})
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        row |= {"distribution": distribution, "installed": version}
    return row


def _pins() -> dict[str, set[str]]:
    """The versions that requirements.txt allows, by name: several where platforms differ."""
    text = _REQUIREMENTS.read_text() if _REQUIREMENTS.is_file() else ""
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall(text):
        pins.setdefault(re.sub(r"[._-]+", "-", name).lower(), set()).add(version)
    return pins


def _memory() -> dict[str, int]:
    """Bytes of memory: all that processes here may use, and what is free of the machine's."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    figures = {name: int(rest.split()[0]) * 1024 for name, rest in (x.split(":") for x in lines)}
    limits = [figures["MemTotal"]]
    for path in map(pathlib.Path, _MEMORY_LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    total = min(limits)
    return {"total": total, "available": min(total, figures["MemAvailable"])}


def _disk(folder: pathlib.Path) -> dict[str, Any]:
    """Free bytes where ``folder`` is or will be made, and whether it can be written there."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return {"path": str(folder), "free": free, "writable": writable}


def _open_files() -> int | None:
    """How many files a process may have open if it asks; None for no limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _can_listen() -> bool:
    """Whether a chief could serve on this machine's loopback."""
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
        except OSError:
            return False
    return True


def _fashion_mnist() -> dict[str, Any]:
    """Where the data set lies; nothing is downloaded to find out."""
    from hpo import data

    try:
        files = data.locate_here()
    except DataError as error:
        return _unknown(str(error))
    if files is None:
        return _unknown(
            f"not on this machine: apt-get install dataset-fashion-mnist, or name a folder by "
            f"{env.DATA_DIR}, or let a first trial download it"
        )
    return {"folder": str(files[0].parent), "lack": None}


def _unknown(why: str) -> dict[str, Any]:
    return {"folder": None, "lack": why}


def _missing(found: Mapping[str, Any]) -> list[str]:
    """Without which a search, or a published study, does not run."""
    absent = [row["name"] for row in found["packages"] if not row["installed"]]
    missing = [f"{name}: pip install -r requirements.txt" for name in absent]
    for disk in found["disk"].values():
        if not disk["writable"]:
            missing.append(f"{disk['path']} cannot be written: name another folder")
    if not found["loopback"]:
        missing.append("no port of 127.0.0.1 can be bound: chief and workers need one")
    if lack := found["fashion_mnist"]["lack"]:
        missing.append(f"Fashion-MNIST: {lack}")
    return missing


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """With which a search runs, but not as it should."""
    warnings = [
        f"{row['name']} is {row['installed']}, and requirements.txt pins "
        f"{' or '.join(row['pinned'])}"
        for row in found["packages"]
        if row["installed"] and row["pinned"] and row["installed"] not in row["pinned"]
    ]
    for disk in found["disk"].values():
        if disk["free"] < _LITTLE_DISK:
            warnings.append(f"{disk['path']} has {size(disk['free'])} left")
    if found["memory"]["available"] < _LITTLE_MEMORY:
        warnings.append(f"{size(found['memory']['available'])} of memory are free")
    if (found["open_files"] or _FEW_FILES) < _FEW_FILES:
        warnings.append(f"at most {found['open_files']} open files: TensorBoard needs one a trial")
    if found["gpus"] and found["packages"][0]["distribution"] == "tensorflow-cpu":
        warnings.append("tensorflow-cpu leaves the GPUs idle: see requirements-gpu.txt")
    return warnings
