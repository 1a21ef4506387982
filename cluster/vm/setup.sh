#!/bin/sh
# Makes a node able to search: the locked environment and the project, the same on every node.
# `ray up` runs it on each; a second time it does only what is missing.
set -eu
home="$HOME/tunefleet"
chmod 600 "$HOME/.ray/auth_token"

# Packages change with their lock files alone.
locks=$(cat "$home"/requirements-gpu.txt "$home"/requirements-vm.txt | sha256sum)
if [ "$(cat "$home/.venv/locks" 2>/dev/null)" != "$locks" ]; then
    # uv brings Python 3.11 along where the system's is another.
    install="python3 -m pip install --quiet --user --require-hashes -r $home/requirements-uv.txt"
    $install --break-system-packages 2>/dev/null || $install
    uv="$HOME/.local/bin/uv"
    test -x "$home/.venv/bin/python" || "$uv" venv --quiet --python 3.11 "$home/.venv"
    "$uv" pip sync --quiet --require-hashes --python "$home/.venv/bin/python" \
        "$home/requirements-gpu.txt" "$home/requirements-vm.txt"
    echo "$locks" >"$home/.venv/locks"
fi

# `ray submit` copies one file to the head's home and runs it there: this is how it finds the rest.
packages=$("$home/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$home" >"$packages/tunefleet.pth"

line='. "$HOME/tunefleet/environment.sh"'
grep -qsxF "$line" "$HOME/.bashrc" || echo "$line" >>"$HOME/.bashrc"
