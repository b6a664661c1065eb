#!/usr/bin/env bash
# Runs all tests: with cargo-nextest where it is installed (its limits are in
# .config/nextest.toml), otherwise with cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
# A test starts two servers and waits for them half of its time: five tests for
# two cores keep a small machine busy and starve none of them.
threads=${WALFERRY_TEST_THREADS:-$((5 * $(nproc) / 2))}
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --test-threads "$threads"
    cargo test --locked --doc
else
    cargo test --locked -- --test-threads "$threads"
fi
