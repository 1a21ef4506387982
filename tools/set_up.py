"""Makes a virtual environment with what the given requirements files lock: `make` calls it.

    python3 tools/set_up.py .venv requirements.txt [requirements-dev.txt ...]

uv resolves and downloads in parallel. Each problem is one line that says what to do; what was
printed besides is in set-up.log of the environment. Kept to what every Python 3 can read, so that
an old one can be told that it is.
"""

import os
import re
import shutil
import subprocess
import sys
import time

# The oldest that the project runs on, and the newest for which TensorFlow is built.
OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UV = os.path.join(ROOT, "requirements-uv.txt")
# What each file brings on Linux: MB that are downloaded, and MB that are installed.
SIZES = {
    "requirements.txt": (620, 2700),
    "requirements-dev.txt": (50, 200),
    "requirements-browser.txt": (12, 50),
    "requirements-gpu.txt": (3500, 8500),
    "requirements-gp.txt": (2800, 6500),
}
# Lines of uv's that a person wants to see while it works.
PROGRESS = re.compile(r"\s*(Resolved|Downloading|Building|Prepared|Installed|Bytecode) ")
OFFLINE = re.compile(
    "dns error|failed to lookup|Name or service|name resolution|Connection refused|unreachable"
    "|timed out|error sending request|NewConnectionError|No route to host|tunnel|ConnectTimeout",
    re.IGNORECASE,
)
FULL = re.compile("No space left|ENOSPC|Disk quota|os error 28", re.IGNORECASE)
REFUSED, FAILED = 2, 3


def leave(words, status=FAILED):
    """Ends with one line."""
    sys.stderr.write(f"set-up: {words}\n")
    sys.exit(status)


def check_python():
    """Refuses a Python for which the locked packages are not built."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        leave(
            "{} is Python {}.{}, and TensorFlow needs 3.{} to 3.{}: name another, such as "
            "`make PYTHON=python3.11`".format(
                sys.executable, *sys.version_info[:2], OLDEST[1], NEWEST[1]
            ),
            REFUSED,
        )


def check_room(venv, megabytes):
    """Refuses a disk on which the environment has no room."""
    folder = os.path.dirname(os.path.abspath(venv))
    free = shutil.disk_usage(folder).free // 10**6
    if free < megabytes:
        leave(
            f"{free / 1000:.1f} GB are free in {folder}, and the environment needs "
            f"{megabytes / 1000:.1f}: make room, or check out on another disk",
            FAILED,
        )


def configured():
    """Variables with which uv uses the index and the certificates that pip is told to use."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    found = dict(
        re.findall(r"^(?:global|user|site|install|:env:)\.([\w-]+)='(.*)'$", answer.stdout, re.M)
    )
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
    }
    given = {names[key]: value for key, value in found.items() if key in names}
    return dict(given, **os.environ)


def run(command, log, show):
    """Runs a command; what it says goes to ``log``, and what ``show`` matches to the terminal."""
    process = subprocess.Popen(
        command,
        env=configured(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        log.write(line)
        if show.match(line):
            sys.stderr.write(f"set-up: {line.strip()}\n")
    if process.wait():
        explain("".join(said), log.name)


def explain(said, log):
    """Ends with the one line that says why a command failed."""
    if FULL.search(said):
        leave(f"the disk is full: make room, and type the same again (see {log})")
    if OFFLINE.search(said):
        leave(
            "the package index cannot be reached: connect, or name a mirror by `pip config set "
            f"global.index-url URL`, and type the same again (see {log})"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["nothing was said"]
    leave(f"{lines[-1]} (see {log})")


def make_environment(venv):
    """The interpreter of the environment, which is made where there is none."""
    python = os.path.join(venv, "bin", "python")
    done = subprocess.run(
        [sys.executable, "-m", "venv", venv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode and FULL.search(done.stdout):
        leave("the disk is full: make room, and type the same again")
    if done.returncode:
        leave(
            f"{sys.executable} cannot make virtual environments: install its venv, on Debian by "
            "'apt-get install python3-venv'"
        )
    return python


def main(venv, *files):
    """Sets up ``venv`` with what ``files`` lock."""
    check_python()
    began = time.time()
    sizes = [SIZES.get(os.path.basename(name), (0, 0)) for name in files]
    fetched, installed = (sum(column) for column in zip(*sizes, strict=False))
    check_room(venv, installed)
    sys.stderr.write(
        "set-up: {} into {}: some {} MB to download, {:.1f} GB installed\n".format(
            " ".join(files), venv, fetched, installed / 1000
        )
    )
    python = make_environment(venv)
    with open(os.path.join(venv, "set-up.log"), "w") as log:
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--retries", "2", "--require-hashes", "-r", UV], log, re.compile("^$(?!)"))
        uv = [os.path.join(venv, "bin", "uv"), "pip", "install", "--python", python]
        # Compiled once and in parallel, where each process would do it again or not at all.
        uv += ["--require-hashes", "--compile-bytecode"]
        run(uv + [word for name in files for word in ("-r", name)], log, PROGRESS)
    sys.stderr.write(f"set-up: done in {time.time() - began:.0f} s\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        leave("python3 tools/set_up.py VENV REQUIREMENTS...", REFUSED)
    try:
        main(*sys.argv[1:])
    except OSError as error:
        # The log, too, may find no room.
        explain(str(error), sys.argv[1])
