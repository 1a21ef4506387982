#!/bin/sh
# Makes sure that Fashion-MNIST is here: found, or downloaded as Keras does, or, where that
# is not possible, from Debian's package (installed as root, else unpacked into .data/).
set -eu
python=$1

if "$python" -c 'from hpo import data; data.fashion_mnist()' 2>/dev/null; then
    exit 0
fi
echo "Fashion-MNIST is not here and cannot be downloaded: trying Debian's package" >&2
if ! command -v apt-get >/dev/null; then
    # No Debian either: let the program say which places it looked at.
    exec "$python" -c 'from hpo import data; data.fashion_mnist()'
fi
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends dataset-fashion-mnist >/dev/null
else
    mkdir -p .data/package
    (cd .data/package && apt-get download -qq dataset-fashion-mnist && dpkg-deb -x ./*.deb .)
    ln -sfn package/usr/share/datasets/fashion-mnist .data/fashion-mnist
    export TUNEFLEET_DATA_DIR="$PWD/.data/fashion-mnist"
fi
exec "$python" -c 'from hpo import data; data.fashion_mnist()'
