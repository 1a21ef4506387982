#!/bin/sh
# Runs the pytest command that it is given. What failed runs once more, alone, and that is said:
# only for suites that start whole clusters on one machine.
set -u
# A cache of its own: the usual one has the failures of other suites in it too.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
"$@" -o cache_dir="$cache"
status=$?
[ "$status" = 1 ] || exit "$status"
failed=$cache/v/cache/lastfailed
count=$(grep -c '": true' "$failed")
# So many do not fail by chance.
if [ "$count" -eq 0 ] || [ "$count" -gt 5 ]; then
    exit "$status"
fi
echo "RUN ONCE MORE, alone, since they failed:"
sed -n 's/^ *"\(.*\)": true.*/  \1/p' "$failed"
"$@" -o cache_dir="$cache" --last-failed --last-failed-no-failures=none
