# What the tests run with; sourced by the scripts beside it, in the folder above.
# What scripts/postgres.sh has found or fetched, for the unit tests as well.
versions=${CARGO_TARGET_DIR:-target}/postgres/versions
if [ -z "${WALFERRY_TEST_PG_BINDIRS:-}" ] && [ -e "$versions" ]; then
    WALFERRY_TEST_PG_BINDIRS=$(sed 's/^[0-9]*=//' "$versions" | paste -sd:)
    export WALFERRY_TEST_PG_BINDIRS
fi
# Each test makes two clusters of a thousand files: in memory where there is plenty (a
# run has 2 GiB there at most), which takes a third off the time. Doctests are programs
# that are built and run there.
free_of() { df --output=avail -k "$1" 2>/dev/null | tail -1; }
available=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null || echo 0)
runs_programs() { ! findmnt -no OPTIONS -T "$1" 2>/dev/null | grep -qw noexec; }
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ] && runs_programs /dev/shm && [ "$(free_of /dev/shm)" -gt 6000000 ] && [ "${available:-0}" -gt 8000000 ]; then
    TMPDIR=$(mktemp -d /dev/shm/walferry-test.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
    # The servers run as another user.
    chmod 711 "$TMPDIR"
fi
