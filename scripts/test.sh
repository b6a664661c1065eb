#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed (its limits are in
# .config/nextest.toml), otherwise with cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked
    cargo test --locked --doc
else
    # A test starts two servers: more tests at once than this would only wait
    # for each other.
    cargo test --locked -- --test-threads "${WALFERRY_TEST_THREADS:-4}"
fi
