#!/bin/sh
# Makes sure that Chromium and its driver are here: found, or installed from Debian as root.
set -eu
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools/get_browser.sh: chromium and chromedriver are not here:" \
        "install them, on Debian by 'apt-get install chromium chromium-driver'" >&2
    exit 2
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium chromium-driver >/dev/null
