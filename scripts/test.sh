#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed (its limits are in
# .config/nextest.toml), otherwise with cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
# What scripts/postgres.sh has found or fetched, for the unit tests as well.
versions=${CARGO_TARGET_DIR:-target}/postgres/versions
if [ -z "${WALFERRY_TEST_PG_BINDIRS:-}" ] && [ -e "$versions" ]; then
    WALFERRY_TEST_PG_BINDIRS=$(sed 's/^[0-9]*=//' "$versions" | paste -sd:)
    export WALFERRY_TEST_PG_BINDIRS
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked
    cargo test --locked --doc
else
    # A test starts two servers: more tests at once than this would only wait
    # for each other.
    cargo test --locked -- --test-threads "${WALFERRY_TEST_THREADS:-4}"
fi
