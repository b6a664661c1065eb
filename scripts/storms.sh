#!/usr/bin/env bash
# The tests whose cases are random, with many more of them than `make test` has, one
# after the other and all of them; CASES=2 makes two of each. A case that fails names
# its seed. Then all tests with every case of those that `make test` makes a fifth of
# (`some_of` in tests/support).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
failed=()
storm() {
    printf 'storms.sh: %s, cases: %s\n' "$1" "$2" >&2
    # Not nextest, which ends a test after its three minutes.
    WALFERRY_TEST_CASES=$2 cargo test --locked --test it -- --test-threads 1 "$1::" || failed+=("$1")
}
storm ready "${CASES:-200}"
storm catalogs "${CASES:-40}"
storm torture "${CASES:-100}"
storm random "${CASES:-10}"
WALFERRY_TEST_ALL=1 scripts/test.sh || failed+=("every case")
if [ ${#failed[@]} -gt 0 ]; then
    printf 'storms.sh: failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
