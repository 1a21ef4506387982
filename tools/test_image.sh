#!/bin/sh
# Builds the image and runs a study in it as a cluster would: not root, nothing writable but
# /runs and /tmp, no capabilities, no network. Needs root and Debian's buildah, podman, runc;
# where the base image cannot be fetched, debootstrap makes one of Debian's own Python.
set -eu
cd "$(dirname "$0")/.."
for tool in buildah podman runc; do
    command -v "$tool" >/dev/null || { echo "no $tool: apt-get install buildah podman runc" >&2; exit 2; }
done
base=${BASE_IMAGE:-docker.io/library/python:3.11-slim-bookworm}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Where hosts are reached through certificates of their own, the build has to trust them too.
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

if ! podman image exists "$base" && ! timeout 60 podman pull -q "$base" >/dev/null 2>&1; then
    echo "$base cannot be fetched: making a base of Debian's own packages" >&2
    command -v debootstrap >/dev/null || { echo "no debootstrap: apt-get install debootstrap" >&2; exit 2; }
    mirror=$(sed -n 's/^URIs: *//p; s/^deb [^ ]*\(http[^ ]*\).*/\1/p' /etc/apt/sources.list.d/* \
        /etc/apt/sources.list 2>/dev/null | grep -v security | head -n 1)
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,libgomp1 \
        bookworm "$scratch/root" "${mirror:-http://deb.debian.org/debian}" >"$scratch/log" \
        || { tail -n 5 "$scratch/log" >&2; exit 3; }
    ln -sf python3 "$scratch/root/usr/bin/python"
    cp "$bundle" "$scratch/root/etc/ssl/certs/ca-certificates.crt"
    tar -C "$scratch/root" -c . | podman import -q - "$base" >/dev/null
fi

buildah build --runtime runc --network host --pull-never --format docker --tag tunefleet:1 \
    --ulimit nofile=4096:4096 --build-arg "PYTHON=$base" .

mkdir -m 777 "$scratch/runs"
podman --runtime runc run --rm --read-only --cap-drop=ALL --network none \
    --security-opt no-new-privileges --ulimit nofile=1024:4096 --ulimit nproc=4096:4096 \
    --tmpfs /tmp:rw,exec,size=2g,mode=1777 --volume "$scratch/runs:/runs" \
    tunefleet:1 run digits --trials 3 --workers 2 --seed 1 --id image --runs /runs
test -s "$scratch/runs/image/ledger.db"
podman image inspect --format 'image size {{.Size}} bytes, user {{.Config.User}}' tunefleet:1
echo "1 passed, 0 failed"
