#!/bin/sh
# Makes sure that commands are here: found, or installed from Debian as root.
#   get_commands.sh chromium chromedriver=chromium-driver
# names a command and, where that has another name, its package.
set -eu
missing=""
for each in "$@"; do
    command -v "${each%%=*}" >/dev/null || missing="$missing ${each#*=}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools/get_commands.sh: not here:$missing: install them," \
        "on Debian by 'apt-get install$missing' as root" >&2
    exit 2
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
